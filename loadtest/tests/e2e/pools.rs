//! What tests do to pools: tune one for a while, look at it, invoke its function.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use edge_api::{ClientError, ErrorBody, ErrorCode, PoolPatch, PoolStats};
use loadtest::{Protocol, Request};

use crate::{
    fixture::{eventually, seconds},
    invocations::Invocation,
    teststack::TestStack,
};

/// Longest until a pool is where its policy wants it: each restore is interpreted.
pub(crate) const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Runs `test` while a function's pool is tuned so, and sets it back however that ends.
pub(crate) async fn tuned(
    stack: &TestStack,
    function: &str,
    patch: &PoolPatch,
    test: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let name = function.parse()?;
    let before = stack.api().pool(&name).await?.policy;
    stack.api().patch_pool(&name, patch).await.context("tune the pool")?;
    let tested = test.await;
    let back = stack.api().patch_pool(&name, &PoolPatch::whole(before)).await;
    tested?;
    back.map(drop).context("set the pool back")
}

/// A pool's numbers.
pub(crate) async fn stats(stack: &TestStack, function: &str) -> anyhow::Result<PoolStats> {
    let pool = stack.api().pool(&function.parse()?).await?;
    pool.stats.with_context(|| format!("no numbers of {function}'s pool"))
}

/// Waits until exactly so many are warm and nothing else goes on.
pub(crate) async fn warm_is(stack: &TestStack, function: &str, warm: u32) -> anyhow::Result<()> {
    eventually("the pool is at its aim", SETTLE_MAX, || async {
        let stats = stats(stack, function).await?;
        let busy = stats.restoring + stats.leased + stats.reaping;
        ensure!(stats.warm == warm && busy == 0, "{warm} warm are wanted: {stats:?}");
        Ok(())
    })
    .await
}

/// Invokes `hello` once; its answer and which use of its machine it says this was.
pub(crate) async fn invoke(stack: &TestStack) -> anyhow::Result<(Invocation, String)> {
    let host = stack.stack().function_host("hello");
    let mut connection = stack.stack().connect(&host, Protocol::H2).await?;
    let answer = connection.call(&Request::get("/").within(seconds(45))).await?;
    let reuse = answer.header("x-wrenn-reuse").unwrap_or_default().to_owned();
    Ok((Invocation::of(&answer)?, reuse))
}

/// The refusal that was expected, with its documented status.
pub(crate) fn refused<T: std::fmt::Debug>(
    result: Result<T, ClientError>,
    code: ErrorCode,
) -> anyhow::Result<ErrorBody> {
    match result {
        Err(ClientError::Refused(body, status)) => {
            ensure!(body.code == code.as_str(), "{body:?}");
            ensure!(status == code.http_status(), "{code} came with {status}");
            Ok(body)
        }
        Err(error) => Err(error).with_context(|| format!("expected {code}")),
        Ok(done) => bail!("expected {code}, got {done:?}"),
    }
}
