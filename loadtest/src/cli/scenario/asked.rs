//! What the flags of each scenario ask for.

use std::time::Duration;

use loadtest_model::{Dialect, Stream, Work};

use super::{
    Asked, HttpArgs, InvokeArgs, LifecycleArgs, PoolArgs, ProxyArgs, ScenarioArgs, SoakArgs,
    Speaks, StepArgs, StreamArgs, When, ZeroArgs,
};
use crate::cli::target::{TargetArgs, milliseconds};

/// How long a soak is if nothing was said.
const SOAK: Duration = Duration::from_secs(3600);

impl HttpArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = Work::Http {
            path: self.path,
            method: self.method,
            body_bytes: self.body_bytes,
            keep_alive: !self.no_keep_alive,
            expect_status: self.expect_status,
            expect_sha256: self.expect_sha256,
            expect_text: self.expect_text,
            nonce: self.nonce,
        };
        (self.scenario, Asked::by_flags("http", work))
    }
}

impl InvokeArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = Work::Invoke {
            function: self.function,
            path: self.path,
            method: self.method,
            body_bytes: self.body_bytes,
            nonce: !self.no_nonce,
            distinct: !self.reuse,
        };
        (self.scenario, Asked::by_flags("invoke", work))
    }
}

impl ProxyArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = Work::Proxy {
            response_bytes: self.response_bytes,
            request_bytes: self.request_bytes,
            keep_alive: !self.no_keep_alive,
            sandboxes: self.sandboxes,
        };
        (self.scenario, Asked::by_flags("proxy", work))
    }
}

impl LifecycleArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = Work::Lifecycle {
            dialect: match self.dialect {
                Speaks::V1 => Dialect::V1,
                Speaks::E2b => Dialect::E2b,
            },
            template: self.template,
            command: self.command,
            file_bytes: self.file_bytes,
            pause: !self.no_pause,
        };
        (self.scenario, Asked::by_flags("lifecycle", work))
    }
}

impl PoolArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let Self { function, warm, burst, bursts, scenario } = self;
        let work = Work::Pool { function, warm, burst, rounds: bursts };
        (scenario, Asked { name: "pool", work, when: When::Itself })
    }
}

impl ZeroArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = Work::ScaleFromZero { functions: self.functions, rounds: self.times };
        (self.scenario, Asked { name: "scale-from-zero", work, when: When::Itself })
    }
}

impl StepArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = self.scenario.target.simple_work(self.function);
        let when = When::Steps { to: self.to, count: self.steps.max(1), each: self.step_length };
        (self.scenario, Asked { name: "step", work, when })
    }
}

impl SoakArgs {
    pub(super) fn into_work(self) -> (ScenarioArgs, Asked) {
        let work = self.scenario.target.simple_work(self.function);
        (self.scenario, Asked { name: "soak", work, when: When::Long(SOAK) })
    }
}

impl StreamArgs {
    pub(super) fn into_stream(self, path: &str) -> (ScenarioArgs, Stream) {
        let stream = Stream {
            function: self.scenario.target.stack().is_some().then_some(self.function),
            path: self.path.unwrap_or_else(|| path.to_owned()),
            messages: self.messages,
            delay_ms: milliseconds(self.delay),
            message_bytes: self.message_bytes,
        };
        (self.scenario, stream)
    }
}

impl TargetArgs {
    /// A request to a function of the stack, or to the given address.
    fn simple_work(&self, function: String) -> Work {
        if self.stack().is_some() { Work::invoke(function) } else { Work::get("/") }
    }
}
