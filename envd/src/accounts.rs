//! Users and groups, always from the files in `/etc`.
//!
//! A static binary must not ask libc: its name service loads plug-ins that aren't there.
//! The home directory is the file's, so root's is `/root`.

use std::{fs, io, path::PathBuf};

/// A Unix account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// All groups, the primary one first.
    pub groups: Vec<u32>,
}

/// Why a user could not be found.
#[derive(Debug, thiserror::Error)]
pub enum LookUpUserError {
    /// The words are E2B's, which clients know.
    #[error("invalid username: '{name}'")]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// The account files could not be read.
    #[error("can't read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The account files.
#[derive(Debug, Clone)]
pub struct Accounts {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { passwd: "/etc/passwd".into(), group: "/etc/group".into() }
    }
}

impl Accounts {
    /// Accounts from other files than those in `/etc`.
    #[must_use]
    pub const fn in_files(passwd: PathBuf, group: PathBuf) -> Self {
        Self { passwd, group }
    }

    /// Finds a user by name; read anew each time, as users can be added while we run.
    ///
    /// # Errors
    ///
    /// [`LookUpUserError`].
    pub fn user(&self, name: &str) -> Result<User, LookUpUserError> {
        let read = |path: &PathBuf| match fs::read(path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(LookUpUserError::Unreadable { path: path.clone(), source }),
        };
        let passwd = read(&self.passwd)?;
        let mut user = find_user(&passwd, name)
            .ok_or_else(|| LookUpUserError::Unknown { name: name.to_owned() })?;
        match read(&self.group) {
            Ok(group) => user.groups.extend(groups_of(&group, &user)),
            // An image without a group file has no supplementary groups.
            Err(LookUpUserError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(user)
    }
}

/// Reads `name:password:uid:gid:comment:home:shell` lines; broken ones are passed over.
fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [login, _, uid, gid, _, home, _] = fields[..] else { return None };
        if login != name || login.is_empty() {
            return None;
        }
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        let home = if home.is_empty() { "/" } else { home };
        Some(User { name: login.to_owned(), uid, gid, home: home.into(), groups: vec![gid] })
    })
}

/// Reads `name:password:gid:member,member` lines.
fn groups_of(group: &str, user: &User) -> Vec<u32> {
    let member_of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { return None };
        let gid: u32 = gid.parse().ok()?;
        (gid != user.gid && members.split(',').any(|member| member == user.name)).then_some(gid)
    };
    group.lines().filter_map(member_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        # a comment\n\
        broken:x:1\n\
        user:x:1000:1000:,,,:/home/user:/bin/bash\n\
        nohome:x:1001:1001::::\n\
        odd:x:one:1:::\n";
    const GROUP: &str = "root:x:0:\nsudo:x:27:user,other\nuser:x:1000:user\ndocker:x:999:other,user\n\
        near:x:5:users\n";

    #[test]
    fn home_comes_from_the_file_also_for_root() {
        assert_eq!(find_user(PASSWD, "root").unwrap().home, PathBuf::from("/root"));
        assert_eq!(find_user(PASSWD, "user").unwrap().home, PathBuf::from("/home/user"));
        assert_eq!(find_user(PASSWD, "broken"), None);
        assert_eq!(find_user(PASSWD, "odd"), None);
        assert_eq!(find_user(PASSWD, ""), None);
    }

    #[test]
    fn groups_are_those_that_list_the_user() {
        let user = find_user(PASSWD, "user").unwrap();
        assert_eq!(groups_of(GROUP, &user), [27, 999]);
        assert!(groups_of(GROUP, &find_user(PASSWD, "root").unwrap()).is_empty());
    }

    #[test]
    fn unknown_user_is_named_in_the_words_that_clients_know() {
        let error = Accounts::default().user("no-such-user").unwrap_err();
        assert_eq!(error.to_string(), "invalid username: 'no-such-user'");
    }
}
