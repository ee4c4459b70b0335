//! Asks the distribution's archive for the kernel, through apt with a state of its own.
//!
//! The host's package lists and configuration aren't touched; only its archives and how to reach them (proxies, retries) are
//! taken over. apt checks signatures and hashes; unsigned archives are refused whatever the host allows.

use crate::error::BuildError;
use crate::sources;
use crate::tool::{APT_CACHE, APT_CONFIG, APT_GET, Run, Tool};
use crate::workspace::{Workspace, publish_file};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// The package that always depends on the newest kernel for virtual machines.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// Which of the host's settings are taken over: how to reach an archive.
const TAKEN_OVER: [&str; 5] = [
    "Acquire::http",
    "Acquire::Retries",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::ForceIPv",
];

/// One package in one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Its name, as `linux-image-6.1.0-40-cloud-amd64`.
    pub(crate) name: String,
    /// Its version, as `6.1.170-1`.
    pub(crate) version: String,
}

impl Package {
    /// The upstream version with three numbers: `6.1.170-1` is `6.1.170`.
    pub(crate) fn upstream(&self) -> Result<semver::Version, BuildError> {
        let upstream = self.version.split(['-', '+', '~']).next().unwrap_or_default();
        let padded = match upstream.split('.').count() {
            2 => format!("{upstream}.0"),
            _ => upstream.to_owned(),
        };
        semver::Version::parse(&padded).map_err(|error| BuildError::Package {
            package: self.name.clone(),
            problem: format!("version {} is not a kernel's: {error}", self.version),
        })
    }
}

/// apt with its own lists, caches and configuration.
#[derive(Debug)]
pub(crate) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Prepares apt's directories and configuration.
    ///
    /// # Errors
    ///
    /// If the host has no archive of the release, or a file can't be written.
    pub(crate) fn prepare(workspace: &Workspace) -> Result<Self, BuildError> {
        let dir = workspace.path("apt");
        for name in ["state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).map_err(BuildError::file("make", path))?;
        }
        let list = sources_file(workspace)?;
        let config = dir.join("apt.conf");
        let text = format!(
            "Dir::Etc::sourcelist \"{list}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{dir}/state\";\nDir::State::status \"/dev/null\";\n\
             Dir::Cache \"{dir}/cache\";\nAPT::Architecture \"amd64\";\n\
             APT::Sandbox::User \"root\";\nAPT::Get::AllowUnauthenticated \"false\";\n\
             Acquire::AllowInsecureRepositories \"false\";\nAcquire::Languages \"none\";\n{host}",
            list = list.display(),
            dir = dir.display(),
            host = host_settings()?,
        );
        fs::write(&config, text).map_err(BuildError::file("write", &config))?;
        Ok(Self { config })
    }

    /// Finds the newest kernel package, after fetching the archive's signed lists.
    ///
    /// # Errors
    ///
    /// If the archive can't be reached, isn't signed, or has no such package.
    pub(crate) fn newest_kernel(&self) -> Result<Package, BuildError> {
        let update =
            self.run(APT_GET, "fetch package lists").args(["-q", "update", "--error-on=any"]);
        update.output()?;
        let show = self.run(APT_CACHE, "describe the kernel package");
        parse_kernel(&show.args(["--no-all-versions", "show", META_PACKAGE]).output()?)
    }

    /// Downloads a package into the work directory, unless it is there.
    ///
    /// # Errors
    ///
    /// If the archive no longer has this version, or what came isn't what its signed list says.
    pub(crate) fn download(
        &self,
        workspace: &Workspace,
        package: &Package,
    ) -> Result<PathBuf, BuildError> {
        let target = archive_path(workspace, package);
        let draft = workspace.draft()?;
        let wanted = format!("{}={}", package.name, package.version);
        self.run(APT_GET, "download a package")
            .within(draft.path())
            .args(["-q", "download", &wanted])
            .output()?;
        let mut entries =
            fs::read_dir(draft.path()).map_err(BuildError::file("list", draft.path()))?;
        let Some(Ok(file)) = entries.next() else {
            return Err(BuildError::Package {
                package: wanted,
                problem: "the download left no file".to_owned(),
            });
        };
        publish_file(&file.path(), &target)?;
        Ok(target)
    }

    fn run(&self, tool: Tool, step: &'static str) -> Run {
        tool.run(step).env("APT_CONFIG", &self.config)
    }
}

/// Where a downloaded package is kept.
pub(crate) fn archive_path(workspace: &Workspace, package: &Package) -> PathBuf {
    workspace.path(&format!("{}_{}.deb", package.name, package.version.replace(':', "%3a")))
}

/// Writes the archives to use as a `sources.list` and returns its place.
pub(crate) fn sources_file(workspace: &Workspace) -> Result<PathBuf, BuildError> {
    let list = workspace.path("sources.list");
    let text = sources::host_sources(Path::new("/etc/apt"))?;
    fs::write(&list, text).map_err(BuildError::file("write", &list))?;
    Ok(list)
}

/// How this host reaches archives, as lines of apt's configuration.
pub(crate) fn host_settings() -> Result<String, BuildError> {
    let dump = APT_CONFIG.run("print its configuration").arg("dump").output()?;
    Ok(taken_over(&dump))
}

fn taken_over(dump: &str) -> String {
    let wanted = |line: &&str| TAKEN_OVER.iter().any(|prefix| line.starts_with(prefix));
    dump.lines().filter(wanted).map(|line| format!("{line}\n")).collect()
}

/// The package that the meta package depends on, in exactly one version.
fn parse_kernel(description: &str) -> Result<Package, BuildError> {
    let bad = |problem: &str| BuildError::Package {
        package: META_PACKAGE.to_owned(),
        problem: problem.to_owned(),
    };
    let depends = description
        .lines()
        .find_map(|line| line.strip_prefix("Depends:"))
        .ok_or_else(|| bad("it depends on nothing"))?;
    let kernel = depends
        .split(',')
        .map(str::trim)
        .find(|depend| depend.starts_with("linux-image-"))
        .ok_or_else(|| bad("it depends on no kernel"))?;
    let (name, version) = kernel
        .split_once(" (= ")
        .and_then(|(name, version)| Some((name, version.strip_suffix(')')?)))
        .ok_or_else(|| bad("it doesn't depend on exactly one version"))?;
    Ok(Package { name: name.to_owned(), version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let description = "Package: linux-image-cloud-amd64\nVersion: 6.1.170-1\n\
                           Depends: linux-image-6.1.0-40-cloud-amd64 (= 6.1.170-1)\n";
        let package = parse_kernel(description).unwrap();
        assert_eq!(package.name, "linux-image-6.1.0-40-cloud-amd64");
        assert_eq!(package.version, "6.1.170-1");
        assert_eq!(package.upstream().unwrap(), semver::Version::new(6, 1, 170));
    }

    #[test]
    fn versions_become_semver_or_are_refused() {
        let upstream = |version: &str| {
            Package { name: "linux-image".to_owned(), version: version.to_owned() }.upstream()
        };
        assert_eq!(upstream("6.12.48+deb13-1").unwrap(), semver::Version::new(6, 12, 48));
        assert_eq!(upstream("7.0-1").unwrap(), semver::Version::new(7, 0, 0));
        assert!(upstream("next").is_err());
    }

    #[test]
    fn other_descriptions_are_refused() {
        for text in ["", "Depends: dash\n", "Depends: linux-image-6.1.0 (>= 6.1)\n"] {
            assert!(parse_kernel(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_the_way_to_the_archive_is_taken_over() {
        let dump = "APT::Update::Post-Invoke:: \"rm -f /x\";\nAcquire::http::Proxy \"http://p\";\n\
                    Acquire::AllowInsecureRepositories \"1\";\nAcquire::https::CaInfo \"/ca\";\n";
        let expected = "Acquire::http::Proxy \"http://p\";\nAcquire::https::CaInfo \"/ca\";\n";
        assert_eq!(taken_over(dump), expected);
    }
}
