//! The whole build: kernel and base disk side by side, then the template.

use crate::digest::file_digest;
use crate::error::BuildError;
use crate::kernel::{self, Kernel};
use crate::rootfs::{self, Base};
use crate::settings::ImagesConfig;
use crate::template::{self, Envd, Template};
use crate::tool::{self, Tool};
use crate::workspace::Workspace;
use pool_config::Layout;
use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Everything that a cold build runs: asked for before minutes are spent.
const TOOLS: [Tool; 12] = [
    tool::APT_CACHE,
    tool::APT_CONFIG,
    tool::APT_GET,
    tool::CP,
    tool::DEBUGFS,
    tool::DPKG_DEB,
    tool::E2FSCK,
    tool::MKE2FS,
    tool::MMDEBSTRAP,
    tool::SETPRIV,
    tool::TIMEOUT,
    tool::UNSHARE,
];

/// What a build left in the installation.
#[derive(Debug)]
pub struct Built {
    /// The template that is there now.
    pub template: Template,
    /// Whether the kernel or its initramfs was made anew.
    pub kernel_built: bool,
    /// Whether Debian was bootstrapped anew.
    pub base_built: bool,
    /// Whether the template's disks were made anew.
    pub template_built: bool,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |built| if built { "built" } else { "unchanged" };
        write!(
            f,
            "kernel {} {}, base disk {}, template {} (envd {}) {}, in {:.1} s",
            self.template.kernel,
            state(self.kernel_built),
            state(self.base_built),
            self.template.name,
            self.template.envd_version,
            state(self.template_built),
            self.elapsed.as_secs_f64(),
        )
    }
}

/// Builds what is missing or whose inputs changed.
///
/// # Errors
///
/// If this isn't root, a tool is missing or fails, or another build holds the work directory for too long.
pub fn build(layout: &Layout, config: &ImagesConfig) -> Result<Built, BuildError> {
    let start = Instant::now();
    if !nix::unistd::geteuid().is_root() {
        return Err(BuildError::NotRoot);
    }
    TOOLS.iter().try_for_each(|tool| tool.require())?;
    let envd = Envd {
        path: &config.envd,
        version: version_of(&config.envd)?,
        digest: file_digest(&config.envd)?,
    };
    let work_dir = config.work_dir.clone().unwrap_or_else(|| layout.root().join("cache/images"));
    let workspace = Workspace::enter(&work_dir)?;

    let (kernel, base) = thread::scope(|scope| {
        let kernel = scope.spawn(|| {
            timed("kernel", || kernel::build(&workspace, layout, &config.init, config.refresh))
        });
        let base = timed("base disk", || rootfs::build(&workspace, config.refresh));
        let kernel = kernel.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (kernel, base)
    });
    let (kernel, base): (Kernel, Base) = (kernel?, base?);
    let (template, template_built) =
        timed("template", || template::build(layout, &base, &envd, &kernel.version))?;
    Ok(Built {
        template,
        kernel_built: kernel.built,
        base_built: base.built,
        template_built,
        elapsed: start.elapsed(),
    })
}

fn timed<T>(step: &str, run: impl FnOnce() -> Result<T, BuildError>) -> Result<T, BuildError> {
    let start = Instant::now();
    let result = run();
    tracing::info!(
        step,
        elapsed_ms = start.elapsed().as_millis(),
        ok = result.is_ok(),
        "step ended"
    );
    result
}

/// What `envd --version` says: its last word.
fn version_of(envd: &Path) -> Result<String, BuildError> {
    let envd = envd.canonicalize().map_err(BuildError::file("find envd", envd))?;
    let run = tool::TIMEOUT.run("print the version of envd");
    let text = run.arg("5").arg(&envd).arg("--version").output()?;
    match text.split_ascii_whitespace().last() {
        Some(version) => Ok(version.to_owned()),
        None => Err(BuildError::malformed(envd, "`--version` printed nothing")),
    }
}
