//! Are forged, stale and foreign tokens refused, each for its reason?

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use super::*;

/// Someone who signs tokens with ES256.
pub(super) struct Signer {
    kid: String,
    pair: KeyPair,
}

impl Signer {
    pub(super) fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: KeyPair::generate().unwrap() }
    }

    fn key(&self) -> EncodingKey {
        EncodingKey::from_ec_der(&self.pair.serialize_der())
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key(), Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub(super) fn set(&self) -> String {
        json!({ "keys": [{ "kty": "odd" }, self.jwk()] }).to_string()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &self.key()).unwrap()
    }

    pub(super) fn good(&self) -> String {
        self.sign(&json!({ "exp": now() + 600, "sub": "me" }))
    }

    fn policy(&self) -> JwtAuth {
        JwtAuth {
            jwks: Some(self.set()),
            issuer: Some("https://issuer.test".to_owned()),
            audience: vec!["here".to_owned(), "there".to_owned()],
            leeway_s: 30,
            ..JwtAuth::default()
        }
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn claims() -> Value {
    json!({ "exp": now() + 600, "iss": "https://issuer.test", "aud": "here", "sub": "me" })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

async fn show(policy: &JwtAuth, token: &str) -> Result<Claims, JwtError> {
    let value = format!("Bearer {token}");
    let auths = [Auth::Jwt(policy.clone())];
    let fields = [("authorization", value.as_str())];
    match ask(&authenticator(), &auths, "/", &fields, &Known::default()).await {
        Ok(Identity::Jwt(claims)) => Ok(claims),
        Err(AuthError::Jwt(error)) => Err(error),
        other => panic!("expected an answer about the token, got {other:?}"),
    }
}

#[tokio::test]
async fn a_good_token_gives_its_claims() {
    let signer = Signer::new("one");
    let said = show(&signer.policy(), &signer.sign(&claims())).await.unwrap();
    assert_eq!(said["sub"], "me");
    let many = signer.sign(&with("aud", json!(["other", "there"])));
    assert!(show(&signer.policy(), &many).await.is_ok());
    let anyone = JwtAuth { issuer: None, audience: Vec::new(), ..signer.policy() };
    assert!(show(&anyone, &signer.sign(&claims())).await.is_ok(), "aud is not asked for");
}

#[tokio::test]
async fn claims_that_do_not_hold_are_named() {
    let signer = Signer::new("one");
    let claim = |name: &str| JwtError::Claim { claim: name.to_owned() };
    for (name, value, want) in [
        ("exp", json!(now() - 31), JwtError::Expired),
        ("exp", Value::Null, claim("exp")),
        ("exp", json!("soon"), claim("exp")),
        ("nbf", json!(now() + 600), JwtError::NotYet),
        ("iss", json!("https://other.test"), claim("iss")),
        ("iss", Value::Null, claim("iss")),
        ("aud", json!("elsewhere"), claim("aud")),
        ("aud", Value::Null, claim("aud")),
    ] {
        let token = signer.sign(&with(name, value.clone()));
        assert_eq!(show(&signer.policy(), &token).await, Err(want), "{name} {value}");
    }
    let late = signer.sign(&with("exp", json!(now() - 10)));
    assert!(show(&signer.policy(), &late).await.is_ok(), "clocks may differ by the leeway");
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let policy = signer.policy();
    assert_eq!(show(&policy, &other.sign(&claims())).await, Err(JwtError::BadSignature));
    let token = signer.sign(&claims());
    let (head, rest) = token.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let changed = BASE64.encode(with("sub", json!("root")).to_string());
    let forged = format!("{head}.{changed}.{signature}");
    assert_eq!(show(&policy, &forged).await, Err(JwtError::BadSignature));
    let none = BASE64.encode(json!({ "alg": "none", "kid": "one" }).to_string());
    assert_eq!(show(&policy, &format!("{none}.{changed}.")).await, Err(JwtError::Malformed));
    let unknown = Signer::new("two").sign(&claims());
    assert_eq!(show(&policy, &unknown).await, Err(JwtError::UnknownKey));
    let long = format!("{head}.{}.x", "a".repeat(20_000));
    assert_eq!(show(&policy, &long).await, Err(JwtError::Malformed));
    let crit = json!({ "alg": "ES256", "kid": "one", "crit": ["x"] }).to_string();
    let crit = format!("{}.{changed}.{signature}", BASE64.encode(crit));
    assert_eq!(show(&policy, &crit).await, Err(JwtError::Malformed));
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret_and_a_shared_secret_is_no_key() {
    let signer = Signer::new("one");
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
    let public = signer.pair.subject_public_key_info();
    for secret in [public.as_slice(), signer.pair.public_key_pem().as_bytes()] {
        let token = encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(show(&signer.policy(), &token).await, Err(JwtError::BadAlgorithm));
    }
    let set = json!({ "keys": [{ "kty": "oct", "kid": "one", "alg": "HS256", "k": "c2VjcmV0" }] });
    let policy = JwtAuth { jwks: Some(set.to_string()), ..JwtAuth::default() };
    let token = encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap();
    assert_eq!(show(&policy, &token).await, Err(JwtError::BadAlgorithm));
}

#[tokio::test]
async fn an_algorithm_has_to_fit_the_key() {
    let signer = Signer::new("one");
    for (name, value) in [("alg", "ES384"), ("use", "enc")] {
        let mut jwk = signer.jwk();
        jwk[name] = json!(value);
        let jwks = Some(json!({ "keys": [jwk] }).to_string());
        let policy = JwtAuth { jwks, ..signer.policy() };
        let answer = show(&policy, &signer.sign(&claims())).await;
        assert_eq!(answer, Err(JwtError::UnknownKey), "{name}");
    }
    let policy = JwtAuth { jwks: Some("no json".to_owned()), ..signer.policy() };
    let answer = show(&policy, &signer.sign(&claims())).await;
    assert_eq!(answer, Err(JwtError::KeySet(JwksError::BadPolicy)));
}
