//! Where does an old generation receive the packets its successor reads for it?

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

use crate::elders::Elder;

/// The Unix datagram sockets of one process, one per worker; their files go away with this value.
///
/// Bound before the hand-over, since their paths go with the parcel. Only this user can write to them (mode 0600).
#[derive(Debug)]
pub struct ForwardSocket {
    elder: Elder,
    sockets: Vec<StdDatagram>,
    files: Vec<(PathBuf, u64)>,
}

impl ForwardSocket {
    /// Binds `quic-{generation}-{worker}.sock` in `directory` for each worker. A file left over by a process that is
    /// gone is replaced.
    ///
    /// # Errors
    ///
    /// What the file system says, for instance that the path is too long for a socket (107 bytes).
    pub fn bind(directory: &Path, generation: u16, workers: u8) -> io::Result<Self> {
        let elder = Elder { generation, sockets: Vec::new() };
        let mut this = Self { elder, sockets: Vec::new(), files: Vec::new() };
        for worker in 0..workers {
            let path = directory.join(format!("quic-{generation}-{worker}.sock"));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let socket = StdDatagram::bind(&path)?;
            this.files.push((path.clone(), fs::symlink_metadata(&path)?.ino()));
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            socket.set_nonblocking(true)?;
            this.sockets.push(socket);
            this.elder.sockets.push(path);
        }
        Ok(this)
    }

    /// What the successor has to know, for the parcel.
    #[must_use]
    pub fn elder(&self) -> &Elder {
        &self.elder
    }

    /// The socket of `worker`, for [`SteeredSocket::stop_reading`](crate::SteeredSocket::stop_reading).
    ///
    /// # Errors
    ///
    /// If there is no such worker, or the runtime does not take the socket.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime; that runtime has to be driven for as long as the worker reads.
    pub fn socket(&self, worker: u8) -> io::Result<UnixDatagram> {
        let socket = self.sockets.get(usize::from(worker)).ok_or(io::ErrorKind::NotFound)?;
        UnixDatagram::from_std(socket.try_clone()?)
    }
}

impl Drop for ForwardSocket {
    fn drop(&mut self) {
        for (path, inode) in &self.files {
            // A file of another process under this name is not ours to remove.
            if fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == *inode) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_and_the_files_go_with_the_value() {
        let directory = tempfile::tempdir().unwrap();
        let forward = ForwardSocket::bind(directory.path(), 5, 2).unwrap();
        let path = forward.elder().sockets[1].clone();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let receiver = forward.socket(1).unwrap();
        StdDatagram::unbound().unwrap().send_to(b"packet", &path).unwrap();
        let mut buf = [0; 16];
        assert_eq!(receiver.recv(&mut buf).await.unwrap(), 6);
        assert!(forward.socket(2).is_err());
        drop(forward);
        assert!(!path.exists());
    }

    #[test]
    fn a_left_over_file_is_replaced_and_a_newer_one_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let dead = ForwardSocket::bind(directory.path(), 5, 1).unwrap();
        let alive = ForwardSocket::bind(directory.path(), 5, 1).unwrap();
        drop(dead);
        assert!(alive.elder().sockets[0].exists());
    }
}
