//! How files from the object store come onto this disk: whole or not at all.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use pool_store::{ARRIVING_PREFIX, LayerError, LayerId, LayerIndex, LayerStore};

use crate::{Remote, RemoteError};

/// Runs what blocks on the disk where it may. If the caller is cancelled it runs to its end.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(RemoteError::Task { what }))
}

/// A new file beside where it will lie, readable as other files are.
pub(crate) fn draft_in(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    fs::create_dir_all(dir)?;
    tempfile::Builder::new()
        .prefix(ARRIVING_PREFIX)
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)
}

/// Syncs a draft and gives it its name, which it takes over if it is taken.
pub(crate) fn name_draft(draft: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|error| error.error)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The index of a layer if it is on this disk and undamaged.
pub(crate) fn read_index(layers: &LayerStore, id: LayerId) -> Option<LayerIndex> {
    match layers.read_index(id) {
        Ok(index) => Some(index),
        Err(LayerError::NotFound { .. }) => None,
        Err(error) => {
            tracing::warn!(layer = %id, %error, "unusable index, fetching it again");
            None
        }
    }
}

/// Brings the index of a layer onto this disk. Cancel-safe.
pub(crate) async fn fetch_index(
    remote: &Remote,
    layers: &LayerStore,
    id: LayerId,
) -> Result<LayerIndex, RemoteError> {
    let bytes = remote.layer_index(id).await?;
    let path = layers.index_path(id);
    let dir = layers.dir().to_owned();
    blocking("write an index", move || {
        let write = || {
            let mut draft = draft_in(&dir)?;
            draft.write_all(&bytes)?;
            name_draft(draft, &path)
        };
        write().map_err(RemoteError::io("write", &path))?;
        LayerIndex::from_bytes(id, &bytes)
            .map_err(|error| RemoteError::Format { key: path.display().to_string(), error })
    })
    .await
}
