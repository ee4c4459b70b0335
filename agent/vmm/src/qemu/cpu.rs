//! What of the host's processor a device state is bound to.

use std::{collections::BTreeSet, io, path::PathBuf};

use super::QemuSetupError;
use crate::accel::Accel;

/// What the kernel says about the processors.
const CPUINFO: &str = "/proc/cpuinfo";
/// Where FNV-1a of 64 bits begins, and what it multiplies by (draft-eastlake-fnv, section 5).
const FNV_BASIS: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;

/// The fingerprint on this host. TCG's processor is the same everywhere.
pub(crate) fn fingerprint_of(accel: Accel) -> Result<String, QemuSetupError> {
    if accel == Accel::Tcg {
        return Ok("tcg-max".to_owned());
    }
    let unusable = |source| QemuSetupError::Missing { path: PathBuf::from(CPUINFO), source };
    let text = std::fs::read_to_string(CPUINFO).map_err(unusable)?;
    fingerprint(&text).ok_or_else(|| {
        let what = "no `model name` or no `flags` of a processor";
        unusable(io::Error::new(io::ErrorKind::InvalidData, what))
    })
}

/// Of the first processor's model and features, whatever the order of these.
fn fingerprint(cpuinfo: &str) -> Option<String> {
    let field = |name: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name)
    };
    let (_, model) = field("model name")?;
    let (_, flags) = field("flags")?;
    let flags: BTreeSet<&str> = flags.split_whitespace().collect();
    let mut hash = FNV_BASIS;
    for word in std::iter::once(model).chain(flags) {
        for byte in word.bytes().chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
    Some(format!("kvm-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "processor\t: 0\nmodel name\t: Some CPU @ 2.60GHz\ncpu MHz\t\t: 2600.0\n\
        flags\t\t: fpu vme sse avx2\n\nprocessor\t: 1\nmodel name\t: Other\nflags\t\t: fpu\n";

    #[test]
    fn fingerprint_is_of_model_and_features_only() {
        let first = fingerprint(CPU).unwrap();
        assert_eq!(first, fingerprint(&CPU.replace("2600.0", "1200.0")).unwrap());
        assert_eq!(first, fingerprint(&CPU.replace("fpu vme", "vme fpu")).unwrap());
        assert_ne!(first, fingerprint(&CPU.replace("avx2", "avx512f")).unwrap());
        assert_ne!(first, fingerprint(&CPU.replace("Some CPU", "New CPU")).unwrap());
        assert_ne!(first, fingerprint(&CPU.replace("sse avx2", "sseavx2")).unwrap());
    }

    #[test]
    fn fingerprint_stays_the_same_across_versions_of_ours() {
        assert_eq!(
            fingerprint("model name : a\nflags : b c\n").as_deref(),
            Some("kvm-5790a3205504c167")
        );
    }

    #[test]
    fn cpuinfo_without_a_model_or_features_is_refused() {
        assert_eq!(fingerprint(""), None);
        assert_eq!(fingerprint("model name : a\n"), None);
        assert_eq!(fingerprint("flags : a\n"), None);
    }

    #[test]
    fn tcg_is_the_same_everywhere() {
        assert_eq!(fingerprint_of(Accel::Tcg).unwrap(), "tcg-max");
    }
}
