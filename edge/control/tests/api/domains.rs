//! Custom domains from the claim to the route.

use edge_api::Client;
use pool_model::ErrorCode;

use crate::{
    dns::Lie,
    edge::{TestEdge, code, hello},
};

async fn claimed(edge: &TestEdge, domain: &str) -> edge_api::Domain {
    edge.client().add_domain(&hello().name, domain).await.unwrap()
}

async fn routed(edge: &TestEdge, domain: &str) -> Option<String> {
    edge.control.directory().domain(domain).await.unwrap().map(|name| name.to_string())
}

async fn refusal(client: &Client, domain: &str) -> ErrorCode {
    client.verify_domain(&hello().name, domain).await.unwrap_err().code().unwrap()
}

#[tokio::test]
async fn a_domain_leads_to_its_function_once_its_record_is_found_and_until_it_is_given_up() {
    let edge = TestEdge::start().await;
    let api = edge.client();
    let name = api.deploy(&hello(), &code()).await.unwrap().name;
    let claim = claimed(&edge, "Shop.Example.org.").await;
    assert_eq!((claim.domain.as_str(), claim.verified_at), ("shop.example.org", None));
    assert_eq!(claim.record.name, "_wrenn-challenge.shop.example.org");
    assert!(claim.record.value.starts_with("wrenn-verify="), "{claim:?}");
    assert_eq!(claimed(&edge, "shop.example.org").await, claim, "again is the same");

    assert_eq!(routed(&edge, "shop.example.org").await, None);
    assert_eq!(refusal(&api, "shop.example.org").await, ErrorCode::DomainUnverified);
    edge.dns.set(&claim.record.name, &["v=spf1", "wrenn-verify=somebodys-else"]);
    let wrong = api.verify_domain(&name, "shop.example.org").await.unwrap_err().to_string();
    assert!(wrong.contains("`v=spf1`") && wrong.contains(&claim.record.value), "{wrong}");
    assert_eq!(routed(&edge, "shop.example.org").await, None);

    edge.dns.set(&claim.record.name, &["v=spf1", &claim.record.value]);
    let verified = api.verify_domain(&name, "shop.example.org").await.unwrap();
    assert!(verified.verified_at.is_some());
    assert_eq!(routed(&edge, "shop.example.org").await.as_deref(), Some("hello"), "at once");
    assert_eq!(
        edge.control.directory().cached_domain("shop.example.org").flatten().as_deref(),
        Some("hello")
    );
    assert_eq!(api.domains(&name).await.unwrap(), [verified]);

    api.remove_domain(&name, "shop.example.org").await.unwrap();
    assert_eq!(routed(&edge, "shop.example.org").await, None, "at once");
    let gone = api.remove_domain(&name, "shop.example.org").await.unwrap_err();
    assert_eq!(gone.code(), Some(ErrorCode::DomainNotFound));
}

#[tokio::test]
async fn a_claim_blocks_nobody_but_a_proof_does() {
    let edge = TestEdge::start().await;
    edge.client().deploy(&hello(), &code()).await.unwrap();
    let theirs = edge_api::DeployConfig { name: "theirs".parse().unwrap(), ..hello() };
    let other = edge.other_client();
    other.deploy(&theirs, &code()).await.unwrap();
    let (mine, yours) = (
        claimed(&edge, "shop.example.org").await,
        other.add_domain(&theirs.name, "shop.example.org").await.unwrap(),
    );
    assert_ne!(mine.record.value, yours.record.value);

    edge.dns.set(&mine.record.name, &[&mine.record.value, &yours.record.value]);
    other.verify_domain(&theirs.name, "shop.example.org").await.unwrap();
    assert_eq!(refusal(&edge.client(), "shop.example.org").await, ErrorCode::NameTaken);
    assert_eq!(routed(&edge, "shop.example.org").await.as_deref(), Some("theirs"));
    edge.client().remove_domain(&hello().name, "shop.example.org").await.unwrap();
    let taken = edge.client().add_domain(&hello().name, "shop.example.org").await.unwrap_err();
    assert_eq!(taken.code(), Some(ErrorCode::NameTaken));

    // With the function its domain goes, and is free.
    other.delete_function(&theirs.name).await.unwrap();
    assert_eq!(routed(&edge, "shop.example.org").await, None, "at once");
    claimed(&edge, "shop.example.org").await;
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_leaves_the_claim_as_it_is() {
    let edge = TestEdge::start().await;
    edge.client().deploy(&hello(), &code()).await.unwrap();
    let claim = claimed(&edge, "shop.example.org").await;
    edge.dns.set(&claim.record.name, &[&claim.record.value]);
    edge.dns.lie(Lie::Fails);
    assert_eq!(refusal(&edge.client(), "shop.example.org").await, ErrorCode::DomainUnverified);
    edge.dns.lie(Lie::Forged);
    edge.client().verify_domain(&hello().name, "shop.example.org").await.unwrap();
}

#[tokio::test]
async fn names_that_cannot_be_claimed_are_refused() {
    let edge = TestEdge::start().await;
    edge.client().deploy(&hello(), &code()).await.unwrap();
    for bad in ["localhost", "10.0.0.1", "x.wrenn.localhost", "b\u{fc}cher.example"] {
        let refused = edge.client().add_domain(&hello().name, bad).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::InvalidArgument), "{bad}");
    }
    let unseen = edge.other_client().add_domain(&hello().name, "a.example").await.unwrap_err();
    assert_eq!(unseen.code(), Some(ErrorCode::FunctionNotFound));
}
