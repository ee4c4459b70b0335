//! The streams of pools' events: steady, through an agent's death, until their end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use edge_api::{ErrorCode, PoolEvent, PoolEvents};
use tokio::time::{Instant, timeout};

use crate::{
    fixture::seconds,
    kills::{self, Role},
    pools::refused,
    teststack::TestStack,
};

const INTERVAL: Duration = Duration::from_millis(400);
/// Longest for one event on a busy host.
const EVENT_MAX: Duration = Duration::from_secs(15);

pub(crate) async fn pools_are_followed_at_a_steady_pace(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let hello = "hello".parse()?;
    let mut events = stack.api().pool_events(Some(&hello), Some(INTERVAL)).await?;
    let began = Instant::now();
    for count in 0..5_u32 {
        let PoolEvent::Stats(info) = next(&mut events).await? else { bail!("no numbers") };
        ensure!(info.function == hello, "{info:?}");
        let stats = info.stats.context("an event without numbers")?;
        ensure!(stats.series.is_empty() && stats.cap > 0, "{stats:?}");
        let (took, least) = (began.elapsed(), INTERVAL * count.saturating_sub(1));
        ensure!(took >= least, "event {count} came after {took:?}");
    }
    drop(events);
    let pools: BTreeSet<_> = stack.api().pools().await?.into_iter().map(|p| p.function).collect();
    let mut events = stack.api().pool_events(None, Some(INTERVAL)).await?;
    let mut told = BTreeSet::new();
    for _ in 0..pools.len() {
        let PoolEvent::Stats(info) = next(&mut events).await? else { bail!("no numbers") };
        told.insert(info.function);
    }
    ensure!(told == pools, "{told:?}, expected {pools:?}");
    let nobody = "nobody".parse()?;
    refused(stack.api().pool_events(Some(&nobody), None).await, ErrorCode::FunctionNotFound)?;
    let hasty = stack.api().pool_events(None, Some(Duration::from_millis(199))).await;
    refused(hasty, ErrorCode::InvalidArgument).map(drop)
}

pub(crate) async fn stream_of_events_outlives_the_agent(
    stack: Arc<TestStack>,
) -> anyhow::Result<()> {
    let mut events = stack.api().pool_events(None, Some(Duration::from_millis(200))).await?;
    ensure!(matches!(next(&mut events).await?, PoolEvent::Stats(_)), "it begins with trouble");
    let follow = async {
        let deadline = Instant::now() + seconds(40);
        let mut troubled = false;
        while Instant::now() < deadline {
            match next(&mut events).await? {
                PoolEvent::Error(trouble) => {
                    let code: ErrorCode = trouble.code.parse()?;
                    ensure!(code.http_status() >= 500, "{trouble:?}");
                    troubled = true;
                }
                PoolEvent::Stats(_) if troubled => return Ok(()),
                PoolEvent::Stats(_) => {}
                PoolEvent::End(end) => bail!("{end:?}"),
            }
        }
        bail!("the agent's death was not told, or not its return")
    };
    let (followed, killed) = tokio::join!(follow, kills::kill_and_wait(&stack, Role::Agent));
    killed?;
    followed
}

/// The next event, which must come.
pub(crate) async fn next(events: &mut PoolEvents) -> anyhow::Result<PoolEvent> {
    let event = timeout(EVENT_MAX, events.next()).await.context("no event")??;
    event.context("the stream has ended")
}

/// Reads on until the stream ends, which it must do by itself.
pub(crate) async fn ends(mut events: PoolEvents) -> anyhow::Result<()> {
    let read = async {
        while events.next().await?.is_some() {}
        Ok::<_, anyhow::Error>(())
    };
    timeout(EVENT_MAX, read).await.context("the stream goes on")?.context("it broke off")
}
