//! What does each check on the way of a request cost, in nanoseconds, on one thread and on two?

#![allow(clippy::unwrap_used, reason = "a bench that stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    hint::black_box,
    net::{IpAddr, SocketAddr},
    sync::Barrier,
    time::{Duration, Instant},
};

use edge_policy::{
    Admission, AdmitKey, AdmitLimits, BreakerConfig, Breakers, ClientNet, Connections, Decision,
    RateKey, Rates, RetryBudgets, SigningSecret, TrafficToken, admit_traffic, allowed, sign,
    verify,
};
use http::{HeaderMap, Method, Uri};
use pool_model::{FunctionId, Rate, TeamId};

const ROUNDS: u32 = 300_000;
const FUNCTION: FunctionId = FunctionId::from_u128(1);

fn main() {
    println!("{:<36}{:>10}{:>10}", "ns a call", "1 thread", "2 threads");
    rates();
    admission();
    guards();
    secrets();
}

/// Times `call` on one thread and on two at once; the number tells each call from the others.
fn time(name: &str, call: impl Fn(u32) + Sync) {
    let [one, two] = [1, 2].map(|threads: u32| {
        let barrier = Barrier::new(usize::try_from(threads).unwrap());
        let work = |thread: u32| {
            barrier.wait();
            let start = Instant::now();
            (0..ROUNDS).for_each(|round| call(round * 2 + thread));
            start.elapsed()
        };
        let work = &work;
        let slowest = std::thread::scope(|scope| {
            let spawned: Vec<_> = (0..threads).map(|t| scope.spawn(move || work(t))).collect();
            spawned.into_iter().map(|thread| thread.join().unwrap()).max()
        });
        slowest.unwrap().as_nanos() / u128::from(ROUNDS)
    });
    println!("{name:<36}{one:>10}{two:>10}");
}

fn rates() {
    let (rates, now) = (Rates::default(), Instant::now());
    let rate = Some(Rate { per_second: 1_000_000, burst: 4_000_000 });
    time("rate: no limit", |_| {
        assert!(black_box(rates.check(RateKey::Function(FUNCTION), None, now)).is_ok())
    });
    time("rate: one function", |_| {
        assert!(black_box(rates.check(RateKey::Function(FUNCTION), rate, now)).is_ok());
    });
    time("rate: many clients", |n| {
        let client = ClientNet::V6(u64::from(n % 10_000));
        assert!(black_box(rates.check(RateKey::Client(FUNCTION, client), rate, now)).is_ok());
    });
}

fn admission() {
    let admission = Admission::new();
    let key = AdmitKey { function: FUNCTION, team: TeamId::from_u128(2) };
    let now = tokio::time::Instant::now();
    let deadline = now + Duration::from_secs(60);
    let admit = |limits: AdmitLimits| {
        let mut place = std::pin::pin!(admission.admit(key, limits, now, deadline));
        let waker = std::task::Waker::noop();
        let polled = place.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(black_box(polled).is_ready());
    };
    time("admission: no limit", |_| admit(AdmitLimits::default()));
    let limits = AdmitLimits { function_max: 100, team_max: 0, queue_max: 10 };
    time("admission: function, in and out", |_| admit(limits));
    let both = AdmitLimits { team_max: 100, ..limits };
    time("admission: function and team", |_| admit(both));
    let host = SocketAddr::from(([127, 0, 0, 1], 80));
    time("admission: host, in and out", |_| {
        drop(black_box(admission.try_host(FUNCTION, host, 100)))
    });
}

fn guards() {
    let ip: IpAddr = "203.0.113.7".parse().unwrap();
    let nets: Vec<_> = (0..16).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
    time("ip: 16 denied networks", |_| assert!(black_box(allowed(&[], &nets, ip))));
    let connections = Connections::new(1000);
    time("connections: open and close", |_| drop(black_box(connections.try_open(ip))));
    let (breakers, now) = (Breakers::new(BreakerConfig::default()), Instant::now());
    time("breaker: ask and succeed", |_| {
        let decision: Decision = breakers.ask(1_u32, now);
        breakers.succeeded(1, decision, now);
    });
    let budgets = RetryBudgets::default();
    time("retry: deposit", |_| budgets.deposit(FUNCTION, now));
}

fn secrets() {
    let token = TrafficToken::new("a-token-of-some-usual-length-0123").unwrap();
    let uri: Uri = "/path?query=1".parse().unwrap();
    let mut headers = HeaderMap::new();
    headers
        .insert("cookie", "wrenn-traffic=a-token-of-some-usual-length-0123; a=1".parse().unwrap());
    time("traffic: cookie", |_| {
        let mut headers = headers.clone();
        let age = Duration::from_secs(60);
        drop(black_box(admit_traffic(&token, &uri, &mut headers, true, true, age)));
    });
    let secret = SigningSecret::new("secret");
    let url = sign(&secret, Some(&Method::GET), "/path?query=1", i64::MAX);
    time("signed url: verify", |_| {
        assert!(black_box(verify(Some(&secret), &Method::GET, &url, 0)).is_ok());
    });
}
