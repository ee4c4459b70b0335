//! How a file gets into the bucket: at once, or in parts if it is large.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path as FsPath, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    PutPayload,
    multipart::{MultipartStore as _, PartId},
    path::Path,
};

use crate::{Published, Remote, RemoteError, install::blocking};

/// Bytes of a part; a smaller file is sent at once. Source: S3 takes parts of 5 MiB and more.
pub const PART_BYTES: usize = 8 << 20;
/// Most parts of an upload. Source: S3's limit.
const PARTS_MAX: u64 = 10_000;

/// A file that is being sent.
struct Source {
    file: Arc<File>,
    path: Arc<FsPath>,
    bytes: u64,
    part: u64,
}

impl Source {
    async fn read(&self, number: u64) -> Result<Bytes, RemoteError> {
        let (file, path) = (Arc::clone(&self.file), Arc::clone(&self.path));
        let start = number * self.part;
        let len = self.part.min(self.bytes - start);
        blocking("read a file", move || {
            let mut buffer = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut buffer, start).map_err(RemoteError::io("read", &*path))?;
            Ok(buffer.into())
        })
        .await
    }
}

impl Remote {
    /// Sends `bytes` unless an object of this length is there.
    pub(crate) async fn send_bytes(
        &self,
        key: &Path,
        bytes: Vec<u8>,
        tally: &mut Published,
    ) -> Result<(), RemoteError> {
        let len = bytes.len() as u64;
        if self.head(key).await? == Some(len) {
            tally.skip(len);
            return Ok(());
        }
        self.put(key, bytes.into()).await?;
        tally.send(len);
        Ok(())
    }

    /// Sends the file at `path` unless an object of its length is there.
    ///
    /// If it is cancelled or the process dies, parts that were sent stay in the bucket, out of
    /// sight, until a lifecycle rule of the bucket removes them; the next try starts anew.
    pub(crate) async fn send_file(
        &self,
        key: &Path,
        path: &FsPath,
        tally: &mut Published,
    ) -> Result<(), RemoteError> {
        let file = File::open(path).map_err(RemoteError::io("open", path))?;
        let bytes = file.metadata().map_err(RemoteError::io("stat", path))?.len();
        if self.head(key).await? == Some(bytes) {
            tally.skip(bytes);
            return Ok(());
        }
        let part = (PART_BYTES as u64).max(bytes.div_ceil(PARTS_MAX));
        let source = Source { file: Arc::new(file), path: path.into(), bytes, part };
        if bytes <= part {
            self.put(key, source.read(0).await?).await?;
        } else {
            self.send_in_parts(key, &source).await?;
        }
        tally.send(bytes);
        Ok(())
    }

    async fn send_in_parts(&self, key: &Path, source: &Source) -> Result<(), RemoteError> {
        let begin = || async { Ok(self.s3().create_multipart(key).await?) };
        let upload = self.call("begin to write", key, 0, begin).await?;
        let sent = self.send_parts(key, &upload, source).await;
        if sent.is_err() {
            // Best effort: the error that is returned matters more than a left-over.
            let _ = self.s3().abort_multipart(key, &upload).await;
        }
        sent
    }

    async fn send_parts(
        &self,
        key: &Path,
        upload: &String,
        source: &Source,
    ) -> Result<(), RemoteError> {
        let parts: Vec<PartId> = stream::iter(0..source.bytes.div_ceil(source.part))
            .map(|number| async move {
                let bytes = source.read(number).await?;
                let at = usize::try_from(number).unwrap_or(usize::MAX);
                let payload = || PutPayload::from(bytes.clone());
                let once = || async { Ok(self.s3().put_part(key, upload, at, payload()).await?) };
                self.call("write a part of", key, bytes.len() as u64, once).await
            })
            .buffered(self.config().parallel)
            .try_collect()
            .await?;
        let end = || async {
            self.s3().complete_multipart(key, upload, parts.clone()).await?;
            Ok(())
        };
        match self.call("finish writing", key, source.bytes, end).await {
            // An answer that was lost: asked again, the server knows no such upload any more.
            Err(error) if self.head(key).await? != Some(source.bytes) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
