//! A route that is known is taken as it is known: nobody is asked, and nothing older is used.

use std::sync::{Arc, atomic::Ordering};

use pool_model::FunctionId;

use crate::{
    client::{ALL, Client, code, get, seen},
    stack::{Stack, function},
};

#[tokio::test]
async fn a_known_route_is_not_asked_for_and_a_change_counts_from_the_next_request_on() {
    let stack = Stack::start().await;
    let routes = &stack.routes;
    let asked = || routes.asked.load(Ordering::SeqCst);
    let tell = |name: &str, route| routes.known.lock().unwrap().insert(name.to_owned(), route);
    // All of them stay open: neither a connection nor a worker may keep a route for itself.
    let mut clients = Vec::new();
    for proto in ALL {
        for _ in 0..2 {
            clients.push((proto, Client::new(&stack, proto).await));
        }
    }
    for version in 1..=3_u32 {
        let mut route = (*routes.functions["hello"]).clone();
        route.current.version = version;
        route.current.pool = FunctionId::from_u128(u128::from(version));
        tell("hello", Some(Arc::new(route)));
        for (proto, client) in &mut clients {
            let body = seen(client, get(&function("hello"), "/seen")).await;
            let target = format!("function/{}", FunctionId::from_u128(u128::from(version)));
            assert_eq!(body["headers"]["x-wrenn-target"], target, "{proto:?}");
        }
    }
    tell("hello", None);
    for (proto, client) in &mut clients {
        let answer = code(client.send(get(&function("hello"), "/seen")).await).await;
        assert_eq!(answer, (404, "function_not_found".to_owned()), "{proto:?}: it was deleted");
    }
    assert_eq!(asked(), 0, "all of that was known");
}

#[tokio::test]
async fn that_there_is_no_route_is_known_until_there_is_one() {
    let stack = Stack::start().await;
    let routes = &stack.routes;
    let asked = || routes.asked.load(Ordering::SeqCst);
    let tell = |name: &str, route| routes.known.lock().unwrap().insert(name.to_owned(), route);
    for (number, proto) in ALL.into_iter().enumerate() {
        let name = format!("new-{number}");
        let mut client = Client::new(&stack, proto).await;
        let missing = (404, "function_not_found".to_owned());
        for times in 1..=2 {
            let before = asked();
            let answer = code(client.send(get(&function(&name), "/seen")).await).await;
            assert_eq!((answer, asked() - before), (missing.clone(), 1), "{proto:?} {times}");
        }
        tell(&name, None);
        let before = asked();
        let answer = code(client.send(get(&function(&name), "/seen")).await).await;
        assert_eq!((answer, asked()), (missing, before), "{proto:?}: that is known now");
        tell(&name, Some(Arc::clone(&routes.functions["hello"])));
        let answer = client.send(get(&function(&name), "/seen")).await;
        assert_eq!((answer.status().as_u16(), asked()), (200, before), "{proto:?}");
    }
}
