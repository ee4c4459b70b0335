//! What is to run: directories, ports and command lines.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
};

use pool_config::Layout;
use pool_model::{TeamId, TemplateId};

use super::{
    file::{DevFile, Pids},
    log,
    process::Role,
};
use crate::{
    args::{DevDir, StackArgs},
    failure::Failure,
};

/// How much of each log is shown when the stack does not start.
const TAIL_BYTES: u32 = 2048;

/// A stack: where it is and, if it is to be started, how.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) layout: Layout,
    bin_dir: PathBuf,
    stack: Option<StackArgs>,
}

impl Plan {
    /// The plan of a stack to start.
    pub(super) fn new(stack: &StackArgs) -> Result<Self, Failure> {
        Ok(Self { stack: Some(stack.clone()), ..Self::of_dir(&stack.at)? })
    }

    /// The plan of a stack to find or stop.
    pub(super) fn of_dir(at: &DevDir) -> Result<Self, Failure> {
        let layout = Layout::new(&at.wrenn_dir);
        let own = std::env::current_exe().map_err(|e| Failure::local("find this program", e))?;
        let beside = || own.parent().map(PathBuf::from).unwrap_or_default();
        let bin_dir = at.bin_dir.clone().unwrap_or_else(beside);
        Ok(Self { layout, bin_dir, stack: None })
    }

    /// Refuses to start where it can only fail.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let missing = ["agent", "edge", "pager", "libqemu_uffd.so"]
            .into_iter()
            .map(|name| self.bin_dir.join(name))
            .find(|path| !path.exists());
        if let Some(path) = missing {
            let text = format!("{} is missing: run `make build`", path.display());
            return Err(Failure::Usage(text));
        }
        let template = self.layout.template_dir(TeamId::PLATFORM, TemplateId::DEFAULT);
        if !template.join("rootfs.ext4").exists() {
            let text = format!("no image in {}: run `make images`", template.display());
            return Err(Failure::Usage(text));
        }
        if !nix::unistd::geteuid().is_root() {
            let text = "the agent makes network namespaces and cgroups: run as root";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(())
    }

    /// Refuses to reuse a running stack that is on other ports than asked for.
    pub(super) fn check_same_ports(&self) -> Result<(), Failure> {
        let path = self.layout.dev_file();
        let Ok(running) = DevFile::read(&path) else { return Ok(()) };
        if self.dev_file(running.pids.clone()) == running {
            return Ok(());
        }
        let text = format!("{} describes a running stack with other settings", path.display());
        Err(Failure::Usage(format!("{text}: run `wrenn dev down` first")))
    }

    /// Makes sure that at most one supervisor, or one `down`, works on the installation.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let dir = self.layout.run_dir();
        fs::create_dir_all(&dir).map_err(Failure::file("create", &dir))?;
        let path = dir.join("supervisor.lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(Failure::file("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                let held = format!("another supervisor holds {}", path.display());
                Err(Failure::Gave(held))
            }
            Err(fs::TryLockError::Error(e)) => Err(Failure::file("lock", &path)(e)),
        }
    }

    /// What `dev.json` says.
    pub(super) fn dev_file(&self, pids: Pids) -> DevFile {
        let (domain, ports) = match &self.stack {
            Some(s) => (s.domain.clone(), [s.http_port, s.https_port, s.rpc_port, s.proxy_port]),
            None => (String::new(), [0; 4]),
        };
        let [http_port, https_port, rpc_port, proxy_port] = ports;
        let (address, admin_port) =
            self.stack.as_ref().map_or((String::new(), 0), |s| (host(s), s.admin_port));
        DevFile {
            api_url: format!("https://api.{domain}:{https_port}"),
            domain,
            ca_file: self.layout.ca_file(),
            key_file: self.layout.api_key_file(),
            admin_url: format!("http://{address}:{admin_port}"),
            http_port,
            https_port,
            rpc_port,
            proxy_port,
            wrenn_dir: self.layout.root().to_owned(),
            pids,
        }
    }

    /// The program of a role.
    pub(super) fn program(&self, role: Role) -> PathBuf {
        self.bin_dir.join(role.name())
    }

    /// The arguments of the services that the supervisor starts.
    pub(super) fn args(&self, role: Role) -> Vec<OsString> {
        let mut args = vec!["--wrenn-dir".into(), self.layout.root().into()];
        let Some(stack) = &self.stack else { return args };
        let (host, local) = (host(stack), "127.0.0.1");
        let flags = match role {
            Role::Agent => vec![
                ("--rpc-listen", format!("{local}:{}", stack.rpc_port)),
                ("--proxy-listen", format!("{local}:{}", stack.proxy_port)),
            ],
            Role::Edge => vec![
                ("--domain", stack.domain.clone()),
                ("--http-listen", format!("{host}:{}", stack.http_port)),
                ("--https-listen", format!("{host}:{}", stack.https_port)),
                ("--quic-listen", format!("{host}:{}", stack.https_port)),
                ("--admin-listen", format!("{local}:{}", stack.admin_port)),
                ("--agent-rpc", format!("{local}:{}", stack.rpc_port)),
                ("--agent-proxy", format!("{local}:{}", stack.proxy_port)),
            ],
            Role::Supervisor | Role::Pager => Vec::new(),
        };
        args.extend(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
        args
    }

    /// The arguments of our own program that make it the supervisor.
    pub(super) fn supervise_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> =
            ["dev", "supervise", "--wrenn-dir"].map(OsString::from).to_vec();
        args.push(self.layout.root().into());
        args.push("--bin-dir".into());
        args.push(self.bin_dir.clone().into());
        let Some(stack) = &self.stack else { return args };
        let flags = [
            ("--domain", stack.domain.clone()),
            ("--address", stack.address.to_string()),
            ("--http-port", stack.http_port.to_string()),
            ("--https-port", stack.https_port.to_string()),
            ("--admin-port", stack.admin_port.to_string()),
            ("--rpc-port", stack.rpc_port.to_string()),
            ("--proxy-port", stack.proxy_port.to_string()),
        ];
        args.extend(flags.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
        args
    }

    /// The ends of all logs, for a stack that does not start.
    pub(super) fn log_tails(&self) -> String {
        let mut text = String::new();
        for role in [Role::Supervisor, Role::Agent, Role::Edge] {
            let tail = log::tail(&self.layout, role.name(), TAIL_BYTES).unwrap_or_default();
            text.push_str(&format!("--- {}.log\n{tail}", role.name()));
        }
        text
    }
}

/// The address as it stands before a port.
fn host(stack: &StackArgs) -> String {
    let any_port = std::net::SocketAddr::new(stack.address, 0).to_string();
    any_port.trim_end_matches(":0").to_owned()
}
