//! Everything that is wrong with a request has its own code, its field, and a request id.

use edge_api::{CreateCapsule, ErrorBody, MAX_ARCHIVE_BYTES};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use pool_model::{ErrorCode, SandboxId, SnapshotId, TemplateId};

use crate::edge::{TestEdge, client, code, hello, send};

#[tokio::test]
async fn without_a_good_key_only_health_and_the_description_answer() {
    let edge = TestEdge::start().await;
    for path in ["/healthz", "/openapi.json"] {
        let request = Request::get(path).body(Full::default()).unwrap();
        let (status, body) = send(edge.address, request).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice::<serde_json::Value>(&body).unwrap();
    }
    let unknown = edge_store::ApiKey::generate();
    for key in [None, Some(""), Some("wrenn_1"), Some(unknown.expose())] {
        for path in ["/v1/functions", "/v1/capsules/x", "/v1/nothing", "/"] {
            let mut request = Request::get(path);
            if let Some(key) = key {
                request = request.header("x-api-key", key);
            }
            let (status, body) = send(edge.address, request.body(Full::default()).unwrap()).await;
            let error: ErrorBody = serde_json::from_slice(&body).unwrap();
            assert_eq!((status.as_u16(), error.code.as_str()), (401, "unauthorized"), "{path}");
            assert!(!error.message.contains(unknown.expose()));
        }
    }
}

#[tokio::test]
async fn each_bad_request_has_its_code_and_names_its_field() {
    let edge = TestEdge::start().await;
    let capsule = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap();
    let exec = &format!("/v1/capsules/{}/exec", capsule.id);
    let timeout = &format!("/v1/capsules/{}/timeout", capsule.id);
    let nobody = SandboxId::from_u128(1);
    let (post, get, patch) = (Method::POST, Method::GET, Method::PATCH);
    let long = "x".repeat(2 << 20);
    for (method, path, body, code, part) in [
        (&get, "/v1/nothing", "", "not_found", "resource"),
        (&get, "/", "", "not_found", "resource"),
        (&Method::PUT, "/v1/functions", "", "method_not_allowed", "method"),
        (&post, "/healthz", "", "method_not_allowed", "method"),
        (&get, "/v1/capsules/sb_1", "", "invalid_argument", "SandboxId"),
        (&get, &format!("/v1/capsules/{nobody}"), "", "sandbox_not_found", "no capsule"),
        (&get, "/v1/functions/Hello", "", "invalid_argument", "function name"),
        (&get, "/v1/functions/nothing", "", "function_not_found", "nothing"),
        (&patch, "/v1/pools/nothing", "{}", "function_not_found", "nothing"),
        (&patch, "/v1/pools/nothing", r#"{"min":1}"#, "invalid_argument", "min"),
        (&post, "/v1/capsules", "{", "invalid_argument", "body"),
        (&post, "/v1/capsules", "[] x", "invalid_argument", "body"),
        (&post, "/v1/capsules", r#"{"tiemout_s":1}"#, "invalid_argument", "tiemout_s"),
        (&post, "/v1/capsules", r#"{"timeout_s":"x"}"#, "invalid_argument", "`timeout_s`"),
        (&post, "/v1/capsules", r#"{"timeout_s":0}"#, "invalid_argument", "`timeout_s`"),
        (&post, "/v1/capsules", r#"{"on_timeout":"x"}"#, "invalid_argument", "`on_timeout`"),
        (&post, "/v1/capsules", r#"{"env":{"A=":"x"}}"#, "invalid_argument", "`env`"),
        (&post, "/v1/capsules", r#"{"snapshot":"x"}"#, "invalid_argument", "`snapshot`"),
        (&post, "/v1/capsules", r#"{"template":"x"}"#, "template_not_found", "`x`"),
        (&post, "/v1/capsules", &long, "payload_too_large", "over 1048576 bytes"),
        (&post, exec, "{}", "invalid_argument", "`cmd`"),
        (&post, exec, "", "invalid_argument", "body"),
        (&post, exec, r#"{"cmd":"ls","timeout_ms":99999999}"#, "invalid_argument", "timeout_ms"),
        (&post, timeout, r#"{"timeout_s":604801}"#, "invalid_argument", "`timeout_s`"),
    ] {
        let error = edge.refusal(method.clone(), path, body).await;
        assert_eq!(error.code, code, "{method} {path} {error:?}");
        assert!(error.message.contains(part), "{method} {path} {error:?}");
    }
    let snapshot = SnapshotId::from_u128(1);
    let wish = format!(r#"{{"snapshot":"{snapshot}"}}"#);
    let error = edge.refusal(post.clone(), "/v1/capsules", &wish).await;
    assert_eq!(error.code, "snapshot_not_found");
    let wish = format!(r#"{{"template":"{}"}}"#, TemplateId::from_u128(9));
    let error = edge.refusal(post, "/v1/capsules", &wish).await;
    assert_eq!(error.code, "template_not_found");
    assert_eq!(edge.agent.counts(), (1, 0, 0), "nothing was made");
}

#[tokio::test]
async fn a_bad_deploy_is_refused_before_a_machine_is_booted() {
    let edge = TestEdge::start().await;
    let config = serde_json::to_string(&hello()).unwrap();
    let good = [("config", config.as_bytes().to_vec()), ("code", code())];
    let typo = br#"{"name":"a","start":"x","prot":1}"#.to_vec();
    let named = br#"{"name":"-a","start":"x"}"#.to_vec();
    let template = br#"{"name":"a","start":"x","template":"none"}"#.to_vec();
    let huge = usize::try_from(MAX_ARCHIVE_BYTES).unwrap() + 1;
    for (parts, expected, part) in [
        (vec![good[0].clone()], "invalid_argument", "`code`"),
        (vec![good[1].clone()], "invalid_argument", "`config`"),
        (vec![good[0].clone(), good[0].clone()], "invalid_argument", "each once"),
        (vec![("other", vec![])], "invalid_argument", "`other`"),
        (vec![("config", typo), good[1].clone()], "invalid_argument", "prot"),
        (vec![("config", named), good[1].clone()], "invalid_argument", "`name`"),
        (vec![("config", template), good[1].clone()], "template_not_found", "none"),
        (vec![good[0].clone(), ("code", b"junk".to_vec())], "malformed_archive", "tar.gz"),
        (vec![good[0].clone(), ("code", vec![])], "malformed_archive", "empty"),
        (vec![good[0].clone(), ("code", vec![0; huge])], "payload_too_large", "`code`"),
    ] {
        let error = deploy_raw(&edge, &parts).await;
        assert_eq!(error.code, expected, "{error:?}");
        assert!(error.message.contains(part), "{error:?}");
    }
    let error = edge.refusal(Method::POST, "/v1/functions", "{}").await;
    assert_eq!(error.code, "invalid_argument", "no multipart at all");
    assert!(edge.agent.state().created.is_empty());
    assert_eq!(edge.control.store().operations().await.unwrap(), []);
}

#[tokio::test]
async fn an_agent_out_of_reach_is_503_and_comes_back() {
    let edge = TestEdge::start().await;
    assert!(!edge.client().health().await.unwrap().agent_reachable, "not asked yet");
    edge.control.reconcile().await.unwrap();
    assert_eq!(edge.client().health().await.unwrap().status, "ok");

    edge.agent.fail("get_host", ErrorCode::AgentUnavailable);
    edge.agent.fail("list_templates", ErrorCode::AgentUnavailable);
    edge.control.reconcile().await.unwrap_err();
    assert_eq!(edge.client().health().await.unwrap().status, "degraded");
    let error = edge.client().create_capsule(&CreateCapsule::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::AgentUnavailable));

    edge.agent.heal();
    edge.control.reconcile().await.unwrap();
    assert!(edge.client().health().await.unwrap().agent_reachable);
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_503_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = edge_store::Store::open(&dir.path().join("wrenn.db")).await.unwrap();
    let key = edge_store::ApiKey::generate();
    let team = pool_model::TeamId::from_u128(1);
    store.create_team(team, "test", &key, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = format!("http://{}", closed.local_addr().unwrap()).parse().unwrap();
    drop(closed);
    let address = edge_control::AgentAddress { rpc, proxy: "127.0.0.1:1".parse().unwrap() };
    let agent = edge_control::Agent::new(address, &agent_api::Token::new("test"));
    let public = edge_control::Public { scheme: "http".into(), domain: "x".into(), port: None };
    let control =
        edge_control::Control::new(store, agent, public, edge_control::Outside::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = client(listener.local_addr().unwrap(), &key);
    tokio::spawn(async move { axum::serve(listener, edge_control::router(control)).await });

    let error = api.create_capsule(&CreateCapsule::default()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::AgentUnavailable), "{error}");
    let error = api.deploy(&hello(), &code()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::AgentUnavailable), "{error}");
    assert_eq!(api.functions().await.unwrap(), [], "what needs no agent works");
}

#[test]
fn the_description_lists_exactly_the_codes_there_are() {
    let description: serde_json::Value = serde_json::from_str(edge_api::OPENAPI).unwrap();
    let listed = &description["components"]["schemas"]["Error"]["properties"]["code"]["enum"];
    let mut listed: Vec<&str> =
        listed.as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    let mut known: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known);
}

async fn deploy_raw(edge: &TestEdge, parts: &[(&str, Vec<u8>)]) -> ErrorBody {
    let mut body = Vec::new();
    for (name, content) in parts {
        let head = format!("--xyz\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    let request = Request::post("/v1/functions")
        .header("x-api-key", edge.key.expose())
        .header("content-type", "multipart/form-data; boundary=xyz");
    let (_, body) = send(edge.address, request.body(Full::from(body)).unwrap()).await;
    serde_json::from_slice(&body).unwrap()
}
