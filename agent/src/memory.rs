//! Guest memory on its way into a snapshot: pages of a paused machine become blocks of a layer.

use std::io;

use agent_vmm::{Captured, MachineRecord, PageSink, capture_memory};
use pool_store::{ImageWriter, LayerStore, PageMap, WriteError, Written};

use crate::{error::AgentError, host::blocking};

/// What was saved of a guest's memory.
#[derive(Debug)]
pub struct Saved {
    /// Where each page's content is.
    pub map: PageMap,
    /// What the machine had to say.
    pub captured: Captured,
    /// What the disk got.
    pub written: Written,
}

/// Writes a paused machine's memory: all of it, or what differs from `parent`, the map of the
/// snapshot that it was restored from.
///
/// # Errors
///
/// [`AgentError`]; the half-written layer is removed, at the latest by the next collection.
pub async fn save(
    record: &MachineRecord,
    layers: &LayerStore,
    parent: Option<PageMap>,
) -> Result<Saved, AgentError> {
    let sandbox = record.sandbox;
    let step = "write guest memory";
    let (layers, bytes) = (layers.clone(), record.memory.bytes());
    let writer = blocking(move || layers.writer(parent, bytes)).await;
    let sink = Sink(writer.map_err(AgentError::store(step))?);
    let (captured, Sink(writer)) = capture_memory(record, sink)
        .await
        .map_err(|source| AgentError::Capture { sandbox, source: Box::new(source) })?;
    let (map, written) =
        blocking(move || writer.finish()).await.map_err(AgentError::store(step))?;
    Ok(Saved { map, captured, written })
}

/// A layer's writer as the VMM driver sees it.
struct Sink(ImageWriter);

impl PageSink for Sink {
    fn put(&mut self, page: u64, content: &[u8]) -> io::Result<()> {
        self.0.put(page, content).map_err(into_io)
    }
}

/// A full disk stays a full disk.
fn into_io(error: WriteError) -> io::Error {
    let full = matches!(error, WriteError::NoSpace { .. });
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}
