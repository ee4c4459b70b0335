//! Which kernel modules the initramfs needs, dependencies first.
//!
//! The package has no `modules.dep` (depmod makes it on installation), so each module is asked itself: its `.modinfo` section
//! says `depends=virtio,virtio_ring`. What `modules.builtin` lists is part of the kernel and skipped.

use crate::elf::{Elf, ElfError};
use crate::error::BuildError;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One module to insert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The file's contents.
    pub(crate) contents: Vec<u8>,
}

/// Why no order of modules could be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum OrderError {
    /// Neither a module nor built in.
    #[error("the kernel has no module {name}")]
    Missing { name: String },
    /// A module needs itself.
    #[error("the module {name} depends on itself")]
    Cycle { name: String },
}

/// Reads the wanted modules and what they need from a kernel's module tree, in the order to insert them.
///
/// # Errors
///
/// If the tree can't be read, a module is missing, compressed or damaged.
pub(crate) fn collect(tree: &Path, wanted: &[&str]) -> Result<Vec<Module>, BuildError> {
    let builtin = tree.join("modules.builtin");
    let list = fs::read_to_string(&builtin).map_err(BuildError::file("read", &builtin))?;
    let builtin: BTreeSet<String> = list.lines().map(name_of).collect();
    let files = find_modules(&tree.join("kernel"))?;

    let mut contents = BTreeMap::new();
    let order = order(wanted, &mut |name| {
        if builtin.contains(name) {
            return Ok(Found::BuiltIn);
        }
        let Some(path) = files.get(name) else { return Ok(Found::Nowhere) };
        let bytes = fs::read(path).map_err(BuildError::file("read", path))?;
        let depends = depends(&bytes).map_err(|error| BuildError::malformed(path, error))?;
        contents.insert(name.to_owned(), bytes);
        Ok(Found::Module(depends))
    })?
    .map_err(|error| BuildError::malformed(tree, error))?;
    let module = |name: String| contents.remove(&name).map(|contents| Module { name, contents });
    Ok(order.into_iter().filter_map(module).collect())
}

/// What is known about a module's name.
enum Found {
    BuiltIn,
    Nowhere,
    Module(Vec<String>),
}

/// Depth first: what a module needs comes before it, each once.
fn order<E>(
    wanted: &[&str],
    find: &mut dyn FnMut(&str) -> Result<Found, E>,
) -> Result<Result<Vec<String>, OrderError>, E> {
    let mut walk = Walk { done: Vec::new(), open: Vec::new() };
    for name in wanted {
        if let Err(error) = walk.visit(name, find)? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(walk.done))
}

struct Walk {
    done: Vec<String>,
    open: Vec<String>,
}

impl Walk {
    fn visit<E>(
        &mut self,
        name: &str,
        find: &mut dyn FnMut(&str) -> Result<Found, E>,
    ) -> Result<Result<(), OrderError>, E> {
        if self.done.iter().any(|done| done == name) {
            return Ok(Ok(()));
        }
        if self.open.iter().any(|open| open == name) {
            return Ok(Err(OrderError::Cycle { name: name.to_owned() }));
        }
        let depends = match find(name)? {
            Found::BuiltIn => return Ok(Ok(())),
            Found::Nowhere => return Ok(Err(OrderError::Missing { name: name.to_owned() })),
            Found::Module(depends) => depends,
        };
        self.open.push(name.to_owned());
        for depend in &depends {
            if let Err(error) = self.visit(depend, find)? {
                return Ok(Err(error));
            }
        }
        self.open.pop();
        self.done.push(name.to_owned());
        Ok(Ok(()))
    }
}

/// The modules that a module names in its `.modinfo`.
fn depends(module: &[u8]) -> Result<Vec<String>, ElfError> {
    let info = Elf::parse(module)?.section(".modinfo")?.unwrap_or_default();
    let depends = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    Ok(text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

/// All module files below a directory by module name.
fn find_modules(dir: &Path) -> Result<BTreeMap<String, PathBuf>, BuildError> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(BuildError::file("list", &dir))? {
            let entry = entry.map_err(BuildError::file("list", &dir))?;
            let path = entry.path();
            if entry.file_type().map_err(BuildError::file("look at", &path))?.is_dir() {
                left.push(path);
            } else {
                found.insert(name_of(&path.to_string_lossy()), path);
            }
        }
    }
    Ok(found)
}

/// `kernel/net/core/net-failover.ko` is the module `net_failover`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::with_section;
    use std::convert::Infallible;

    fn ordered(wanted: &[&str], known: &[(&str, &[&str])]) -> Result<Vec<String>, OrderError> {
        let result: Result<_, Infallible> = order(wanted, &mut |name| {
            Ok(match known.iter().find(|(known, _)| *known == name) {
                Some((_, ["builtin"])) => Found::BuiltIn,
                Some((_, needs)) => Found::Module(needs.iter().map(ToString::to_string).collect()),
                None => Found::Nowhere,
            })
        });
        let Ok(order) = result;
        order
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let known: &[(&str, &[&str])] = &[
            ("virtio_net", &["virtio", "net_failover", "virtio_ring"]),
            ("net_failover", &["failover"]),
            ("failover", &[]),
            ("virtio", &["virtio_ring"]),
            ("virtio_ring", &[]),
            ("virtio_blk", &["virtio_ring", "virtio"]),
        ];
        assert_eq!(
            ordered(&["virtio_blk", "virtio_net"], known).unwrap(),
            ["virtio_ring", "virtio", "virtio_blk", "failover", "net_failover", "virtio_net"]
        );
    }

    #[test]
    fn what_is_built_in_is_skipped() {
        let known: &[(&str, &[&str])] = &[("ext4", &["builtin"]), ("overlay", &["ext4"])];
        assert_eq!(ordered(&["ext4", "overlay"], known).unwrap(), ["overlay"]);
    }

    #[test]
    fn missing_modules_and_cycles_are_named() {
        let known: &[(&str, &[&str])] = &[("a", &["b"]), ("b", &["a"]), ("c", &["d"])];
        assert_eq!(ordered(&["a"], known), Err(OrderError::Cycle { name: "a".to_owned() }));
        assert_eq!(ordered(&["c"], known), Err(OrderError::Missing { name: "d".to_owned() }));
    }

    #[test]
    fn a_tree_is_read_from_its_modinfo() {
        let tree = tempfile::tempdir().unwrap();
        let net = tree.path().join("kernel/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(tree.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let failover = with_section(".modinfo", b"license=GPL\0depends=\0");
        let net_failover = with_section(".modinfo", b"depends=failover,ext4\0name=net_failover\0");
        fs::write(net.join("failover.ko"), &failover).unwrap();
        fs::write(net.join("net-failover.ko"), &net_failover).unwrap();

        let modules = collect(tree.path(), &["net_failover"]).unwrap();

        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["failover", "net_failover"]);
        assert_eq!(modules[1].contents, net_failover);
        assert!(collect(tree.path(), &["overlay"]).is_err());
    }
}
