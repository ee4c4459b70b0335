//! Who may invoke a function or reach a port, and what the guest learns of how they were let in.

use std::time::{SystemTime, UNIX_EPOCH};

use edge_policy::{SigningSecret, sign};
use edge_proxy::Body;
use http::{HeaderName, HeaderValue, Method, Request};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use pool_model::{Auth, Cors, InvocationPolicy, JwtAuth, Port, TrafficPolicy};
use serde_json::{Value, json};

use crate::{
    client::{ALL, Client, Proto, code, get, post, seen, text},
    stack::{API_KEY, SIGNING_SECRET, Stack, TRAFFIC_TOKEN, function, sandbox},
};

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(HeaderName::from_static(name), value);
    request
}

fn refused() -> (u16, String) {
    (401, "unauthorized".to_owned())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

async fn asks_for(auth: Auth) -> Stack {
    Stack::set_up(|setup| {
        let policy = InvocationPolicy { auth: vec![auth], ..InvocationPolicy::default() };
        setup.policies.insert("guarded", policy);
    })
    .await
}

#[tokio::test]
async fn an_api_key_opens_a_function_and_stays_at_the_edge() {
    let stack = asks_for(Auth::Key).await;
    let asked = || get(&function("guarded"), "/seen");
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let bearer = format!("Bearer {API_KEY}");
        for (name, value) in [("x-api-key", API_KEY), ("authorization", bearer.as_str())] {
            let body = seen(&mut client, with(asked(), name, value)).await;
            assert!(body["headers"][name].is_null(), "{proto:?}: {body}");
        }
        let response = client.send(asked()).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(code(response).await, refused(), "{proto:?}");
        let wrong = with(asked(), "x-api-key", "wk_of_somebody_else");
        assert_eq!(code(client.send(wrong).await).await, refused(), "{proto:?}");
    }
}

#[tokio::test]
async fn a_signed_url_opens_its_own_path_for_its_method_and_time() {
    let stack = asks_for(Auth::SignedUrl).await;
    let secret = SigningSecret::new(SIGNING_SECRET);
    let host = function("guarded");
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let signed = sign(&secret, Some(&Method::GET), "/seen?a=b&c=d", now() + 60);
        let body = seen(&mut client, get(&host, &signed)).await;
        assert_eq!(body["uri"], "/seen?a=b&c=d", "{proto:?}: the guest sees no signature");
        let expired = sign(&secret, None, "/seen", now() - 60);
        let other_key = sign(&SigningSecret::new("other"), None, "/seen", now() + 60);
        let tampered = signed.replace("a=b", "a=c");
        for bad in [expired, other_key, tampered, "/seen".to_owned()] {
            assert_eq!(code(client.send(get(&host, &bad)).await).await, refused(), "{bad}");
        }
        let method = client.send(post(&host, &signed, crate::client::full("x"))).await;
        assert_eq!(code(method).await, refused(), "{proto:?}: it was signed for GET");
    }
}

struct Signer(rcgen::KeyPair);

impl Signer {
    fn key(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.0.serialize_der())
    }

    fn set(&self) -> String {
        let mut jwk = Jwk::from_encoding_key(&self.key(), Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("one".to_owned());
        json!({ "keys": [jwk] }).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        format!("Bearer {}", encode(&header, claims, &self.key()).unwrap())
    }
}

#[tokio::test]
async fn a_json_web_token_opens_a_function_and_its_subject_is_told() {
    let signer = Signer(rcgen::KeyPair::generate().unwrap());
    let policy = JwtAuth {
        jwks: Some(signer.set()),
        issuer: Some("https://issuer.test".to_owned()),
        audience: vec!["here".to_owned()],
        ..JwtAuth::default()
    };
    let stack = asks_for(Auth::Jwt(policy)).await;
    let claims = |exp: i64, aud: &str| json!({ "exp": now() + exp, "iss": "https://issuer.test", "aud": aud, "sub": "somebody" });
    let asked = |token: &str| {
        let request = get(&function("guarded"), "/seen");
        with(with(request, "x-forwarded-user", "root"), "authorization", token)
    };
    let good = signer.token(&claims(600, "here"));
    let forger = Signer(rcgen::KeyPair::generate().unwrap());
    let bad = [
        signer.token(&claims(-600, "here")),
        signer.token(&claims(600, "elsewhere")),
        forger.token(&claims(600, "here")),
        "Bearer nonsense".to_owned(),
    ];
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let body = seen(&mut client, asked(&good)).await;
        assert_eq!(body["headers"]["x-forwarded-user"], "somebody", "{proto:?}");
        for bad in &bad {
            assert_eq!(code(client.send(asked(bad)).await).await, refused(), "{proto:?}");
        }
    }
}

#[tokio::test]
async fn address_lists_hold_for_functions_and_sandboxes() {
    let stack = Stack::set_up(|setup| {
        let nets = |net: &str| vec![net.parse().unwrap()];
        let policy = InvocationPolicy::default();
        let only = |net| InvocationPolicy { allow_ips: nets(net), ..policy.clone() };
        setup.policies.insert("ours", only("127.0.0.0/8"));
        setup.policies.insert("theirs", only("192.0.2.0/24"));
        let denied = InvocationPolicy { deny_ips: nets("127.0.0.1/32"), ..policy.clone() };
        setup.policies.insert("denied", denied);
        setup.traffic.deny_ips = nets("127.0.0.1/32");
    })
    .await;
    let forbidden = (403, "forbidden".to_owned());
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        assert_eq!(client.send(get(&function("ours"), "/seen")).await.status(), 200);
        for host in [function("theirs"), function("denied"), sandbox(80)] {
            assert_eq!(code(client.send(get(&host, "/seen")).await).await, forbidden, "{host}");
        }
    }
}

async fn private() -> Stack {
    Stack::set_up(|setup| {
        let private_ports = vec![Port::try_from(8000).unwrap()];
        setup.traffic = TrafficPolicy { private_ports, ..TrafficPolicy::default() };
    })
    .await
}

#[tokio::test]
async fn a_private_port_wants_its_token_which_the_guest_never_sees() {
    let stack = private().await;
    let host = sandbox(8000);
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let cookie = format!("mine=1; wrenn-traffic={TRAFFIC_TOKEN}");
        let ways = [
            ("x-wrenn-traffic-token", TRAFFIC_TOKEN),
            ("e2b-traffic-access-token", TRAFFIC_TOKEN),
            ("cookie", cookie.as_str()),
        ];
        for (name, value) in ways {
            let body = seen(&mut client, with(get(&host, "/seen?a"), name, value)).await;
            assert!(!body.to_string().contains(TRAFFIC_TOKEN), "{proto:?} {name}: {body}");
            if name == "cookie" {
                assert_eq!(body["headers"]["cookie"], "mine=1", "{proto:?}");
            }
            let wrong = value.replace("abc", "xyz");
            let answer = client.send(with(get(&host, "/seen"), name, &wrong)).await;
            assert_eq!(code(answer).await, refused(), "{proto:?} {name}");
        }
        assert_eq!(code(client.send(get(&host, "/seen")).await).await, refused(), "{proto:?}");
        let open = with(get(&sandbox(8001), "/seen"), "x-wrenn-traffic-token", TRAFFIC_TOKEN);
        let body = seen(&mut client, open).await;
        assert!(
            !body.to_string().contains(TRAFFIC_TOKEN),
            "{proto:?}: not of a public port either"
        );
    }
}

#[tokio::test]
async fn a_token_in_the_query_becomes_a_cookie() {
    let stack = private().await;
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let path = format!("/seen?a=b&wrenn-traffic-token={TRAFFIC_TOKEN}&c");
        let prefix = format!("/sb/8000-{}1", "0".repeat(24));
        let places = [(sandbox(8000), ""), ("wrenn.localhost".to_owned(), prefix.as_str())];
        for (host, prefix) in places {
            let response = client.send(get(&host, &format!("{prefix}{path}"))).await;
            assert_eq!(response.status(), 303, "{proto:?} {host}");
            assert_eq!(response.headers()["location"], format!("{prefix}/seen?a=b&c"));
            assert_eq!(response.headers()["cache-control"], "no-store");
            let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
            assert!(cookie.contains("; HttpOnly"), "{cookie}");
            assert_eq!(cookie.ends_with("; Secure"), proto != Proto::Plain, "{cookie}");
            text(response).await;
            let cookie = cookie.split(';').next().unwrap();
            let again = with(get(&host, &format!("{prefix}/seen?a=b&c")), "cookie", cookie);
            let body = seen(&mut client, again).await;
            assert_eq!(
                (&body["uri"], &body["headers"]["cookie"]),
                (&"/seen?a=b&c".into(), &Value::Null)
            );
        }
        let posted = post(&sandbox(8000), &path, crate::client::full("x"));
        assert_eq!(seen(&mut client, posted).await["uri"], "/seen?a=b&c", "{proto:?}");
    }
}

#[tokio::test]
async fn cross_origin_requests_are_answered_as_the_policy_says() {
    let stack = Stack::set_up(|setup| {
        let cors = Cors {
            origins: vec!["https://app.example".to_owned()],
            methods: vec!["PUT".to_owned()],
            headers: vec!["x-mine".to_owned()],
            max_age_s: 60,
            ..Cors::default()
        };
        let policy = InvocationPolicy { cors: Some(cors), ..InvocationPolicy::default() };
        setup.policies.insert("shared", policy);
    })
    .await;
    let preflight = |origin: &str| {
        let mut request = with(get(&function("shared"), "/seen"), "origin", origin);
        *request.method_mut() = Method::OPTIONS;
        with(request, "access-control-request-method", "PUT")
    };
    for proto in ALL {
        let mut client = Client::new(&stack, proto).await;
        let response = client.send(preflight("https://app.example")).await;
        assert_eq!(response.status(), 204, "{proto:?}");
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
        assert_eq!(response.headers()["access-control-allow-methods"], "PUT");
        assert!(!response.headers().contains_key("x-wrenn-sandbox"), "no guest was asked");
        let response = client.send(preflight("https://evil.example")).await;
        assert!(!response.headers().contains_key("access-control-allow-origin"), "{proto:?}");
        text(response).await;
        for (origin, allowed) in [("https://app.example", true), ("https://evil.example", false)] {
            let request = with(get(&function("shared"), "/seen"), "origin", origin);
            let response = client.send(request).await;
            let said = response.headers().contains_key("access-control-allow-origin");
            assert_eq!((response.status().as_u16(), said), (200, allowed), "{proto:?} {origin}");
            text(response).await;
        }
    }
}
