//! Where everything of one installation is, below its `WRENN_DIR`.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use pool_model::{SandboxId, SnapshotId, TeamId, TemplateId};

use crate::kernel::{self, Kernel, NoKernel};

/// Characters of [`Layout::instance_tag`]: 36^4 = 1.7 million, and short enough that an
/// interface name (15 bytes) has room for an index.
const TAG_CHARS: usize = 4;

/// The directory of one installation. Makes paths; creates nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below `root`, which is made absolute and freed of links where it exists.
    ///
    /// Two spellings of one directory give equal layouts, hence equal tags.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { root: resolve(&root).unwrap_or(root) }
    }

    /// `WRENN_DIR`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config.toml`; it need not exist.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `kernels/`.
    #[must_use]
    pub fn kernels_dir(&self) -> PathBuf {
        self.root.join("kernels")
    }

    /// The newest kernel: the latest semver wins over one without a version.
    ///
    /// # Errors
    ///
    /// [`NoKernel`] if there is none, or its initramfs is missing.
    pub fn latest_kernel(&self) -> Result<Kernel, NoKernel> {
        kernel::latest(&self.kernels_dir())
    }

    /// The kernel of exactly this version; "" is the one without a version.
    ///
    /// # Errors
    ///
    /// [`NoKernel`] if it is not there, or its initramfs is missing.
    pub fn kernel(&self, version: &str) -> Result<Kernel, NoKernel> {
        kernel::exact(&self.kernels_dir(), version)
    }

    /// `images/`.
    #[must_use]
    pub fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    /// `images/teams/{team}/{template}/`: `rootfs.ext4`, `scratch.ext4`, `template.json`.
    #[must_use]
    pub fn template_dir(&self, team: TeamId, template: TemplateId) -> PathBuf {
        self.images_dir().join("teams").join(team.label()).join(template.label())
    }

    /// `sandboxes/`.
    #[must_use]
    pub fn sandboxes_dir(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    /// `sandboxes/{sandbox}/`.
    #[must_use]
    pub fn sandbox_dir(&self, sandbox: SandboxId) -> PathBuf {
        self.sandboxes_dir().join(sandbox.label())
    }

    /// `snapshots/`.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// `snapshots/{snapshot}/`.
    #[must_use]
    pub fn snapshot_dir(&self, snapshot: SnapshotId) -> PathBuf {
        self.snapshots_dir().join(snapshot.label())
    }

    /// `layers/`: the content of all snapshots' memory on this host.
    #[must_use]
    pub fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// `cache/`: blocks of layers that were read from the object store.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// `run/`: sockets and pid files.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    /// `run/{name}.pid`.
    #[must_use]
    pub fn pid_file(&self, name: &str) -> PathBuf {
        self.run_dir().join(format!("{name}.pid"))
    }

    /// `run/pager.sock`.
    #[must_use]
    pub fn pager_socket(&self) -> PathBuf {
        self.run_dir().join("pager.sock")
    }

    /// `secrets/`, mode 0700.
    #[must_use]
    pub fn secrets_dir(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// What the edge shows to the agent, mode 0600.
    #[must_use]
    pub fn agent_token_file(&self) -> PathBuf {
        self.secrets_dir().join("agent_token")
    }

    /// The bootstrap team's API key, mode 0600.
    #[must_use]
    pub fn api_key_file(&self) -> PathBuf {
        self.secrets_dir().join("api_key")
    }

    /// `tls/`: `ca.pem`, `ca.key`, `cert.pem`, `key.pem`.
    #[must_use]
    pub fn tls_dir(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// The local certificate authority's certificate, for clients to trust.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.tls_dir().join("ca.pem")
    }

    /// The edge's SQLite database.
    #[must_use]
    pub fn database_file(&self) -> PathBuf {
        self.root.join("wrenn.db")
    }

    /// `log/`.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where tools and tests find a running developer stack.
    #[must_use]
    pub fn dev_file(&self) -> PathBuf {
        self.root.join("dev.json")
    }

    /// Four base36 characters that tell installations on one host apart.
    ///
    /// Names of network namespaces, cgroups and interfaces carry it, so that two installations
    /// never touch each other's.
    #[must_use]
    pub fn instance_tag(&self) -> String {
        let digest = blake3::hash(self.root.as_os_str().as_encoded_bytes());
        let mut words = digest.as_bytes().iter().map(|byte| usize::from(*byte));
        let mut number = words.by_ref().take(4).fold(0_usize, |n, byte| (n << 8) | byte);
        let mut tag = String::with_capacity(TAG_CHARS);
        for _ in 0..TAG_CHARS {
            tag.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[number % 36]));
            number /= 36;
        }
        tag
    }
}

/// Makes `path` absolute and resolves the links of its deepest part that exists.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(real) = existing.canonicalize() {
            return Ok(missing.iter().rev().fold(real, |path, part| path.join(part)));
        }
        match (existing.components().next_back(), existing.parent()) {
            (Some(last @ (Component::Normal(_) | Component::ParentDir)), Some(parent)) => {
                missing.push(last);
                existing = parent;
            }
            _ => return Ok(absolute),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_documented_layout() {
        let layout = Layout::new("/srv/none/wrenn");
        let zeros = "0".repeat(25);
        assert_eq!(
            layout.template_dir(TeamId::PLATFORM, TemplateId::DEFAULT),
            Path::new("/srv/none/wrenn/images/teams").join(&zeros).join(&zeros)
        );
        let sandbox = SandboxId::from_u128(35);
        assert_eq!(
            layout.sandbox_dir(sandbox),
            Path::new("/srv/none/wrenn/sandboxes").join(sandbox.label())
        );
        assert_eq!(layout.pager_socket(), Path::new("/srv/none/wrenn/run/pager.sock"));
        assert_eq!(layout.pid_file("edge"), Path::new("/srv/none/wrenn/run/edge.pid"));
    }

    #[test]
    fn two_spellings_of_one_directory_share_a_tag_and_two_directories_do_not() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let plain = Layout::new(dir.path().join("a"));
        let linked = Layout::new(dir.path().join("link/./a"));
        assert_eq!(plain, linked);
        assert_eq!(plain.instance_tag(), linked.instance_tag());
        assert_eq!(plain.instance_tag().len(), TAG_CHARS);
        let other = Layout::new(dir.path().join("b"));
        assert_ne!(plain.instance_tag(), other.instance_tag());
    }

    #[test]
    fn tag_does_not_change_when_the_directory_comes_into_being() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("x/y");
        let before = Layout::new(&root).instance_tag();
        std::fs::create_dir_all(&root).unwrap();
        assert_eq!(Layout::new(&root).instance_tag(), before);
    }
}
