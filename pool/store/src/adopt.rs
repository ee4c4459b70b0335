//! How a snapshot that was made elsewhere gets into a store.

use std::{fs, fs::File, io};

use pool_model::SnapshotId;

use crate::{
    CommitError, Draft, Manifest, OpenError, Snapshot,
    durable::sync_dir,
    snapshot::{MANIFEST, MAP, SCRATCH, STATE},
};

/// Why a draft was not adopted. The draft is gone in every case.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// What is in the draft is not the snapshot it should be.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is, but could not be made to last.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Draft {
    /// Makes the files in the draft's directory, `manifest.json` included, snapshot `id`: verifies
    /// all of them, syncs, names. After a crash it is there whole or not. The indexes of the
    /// memory's layers must be in the layer store; their blocks may be elsewhere.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]; the draft is removed then.
    pub fn adopt(self, id: SnapshotId) -> Result<Manifest, AdoptError> {
        let snapshot = Snapshot::open_at(self.dir(), id)?;
        snapshot.verify_files()?;
        for file in [MANIFEST, MAP, STATE, SCRATCH] {
            let path = self.dir().join(file);
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|source| CommitError::from_io("sync", &path, source))?;
        }
        let synced = |dir| sync_dir(dir).map_err(|e| CommitError::from_io("sync", dir, e));
        synced(self.dir())?;
        let store = self.dir().parent().expect("a draft lies in its store");
        let target = store.join(id.label());
        match fs::rename(self.dir(), &target) {
            // What the draft removes when it is dropped now is not there any more.
            Ok(()) => {}
            // Same id, same bytes: it is already here, and the draft goes.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(source) => return Err(CommitError::from_io("name", &target, source).into()),
        }
        synced(store)?;
        Ok(snapshot.manifest)
    }
}
