//! What the template `minimal-debian` is made of. The files are in `images/minimal-debian/`.

use crate::digest::Inputs;
use crate::sources::SUITE;

/// The template's name in the API.
pub(crate) const NAME: &str = "minimal-debian";
/// What a sandbox of it gets when nothing else is asked for.
pub(crate) const MEMORY_MIB: u32 = 256;
/// What a sandbox of it gets when nothing else is asked for.
pub(crate) const VCPUS: u8 = 1;

/// Which files of packages are left out.
pub(crate) const DPKG_CONFIG: &str = include_str!("../../minimal-debian/dpkg.cfg");
/// What is changed after the installation.
pub(crate) const CUSTOMIZE: &str = include_str!("../../minimal-debian/customize.sh");
const PACKAGES: &str = include_str!("../../minimal-debian/packages.list");

/// The packages to install beyond the essential ones.
pub(crate) fn packages() -> Vec<&'static str> {
    PACKAGES
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The key of the bootstrapped tree: the recipe, whatever the mirror and its state.
pub(crate) fn key() -> String {
    Inputs::of("base")
        .with("suite", SUITE)
        .with("packages", packages().join("\n"))
        .with("dpkg", DPKG_CONFIG)
        .with("customize", CUSTOMIZE)
        .key()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_packages() {
        let packages = packages();
        assert!(packages.contains(&"python3") && packages.contains(&"tini"));
        assert!(
            packages.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
        );
    }
}
