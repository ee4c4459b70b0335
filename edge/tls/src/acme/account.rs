//! How do we come by our account at the authority?

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AccountCredentials, CertificateIdentifier, Error, ExternalAccountKey, NewAccount,
};
use jiff::Timestamp;
use tokio::{sync::OnceCell, time::timeout};

use super::{AcmeConfig, client::Client, schedule::in_window};
use crate::{
    error::TlsError,
    files::{loose_mode, read, write},
    x509::Facts,
};

/// The authority, and our account there once it is needed.
#[derive(Default)]
pub(crate) struct Acme {
    account: OnceCell<Account>,
}

impl Acme {
    /// Our account: the stored one, or a new one that is stored before it is used. A failure is
    /// tried again with the next call.
    pub(crate) async fn account(
        &self,
        config: &AcmeConfig,
        path: &std::path::Path,
    ) -> Result<&Account, TlsError> {
        self.account.get_or_try_init(|| load_or_create(config, path)).await
    }

    /// When the authority wants a certificate renewed and when to ask again, in seconds from now
    /// (RFC 9773); `None` if it doesn't say.
    pub(crate) async fn window(
        &self,
        config: &AcmeConfig,
        path: &std::path::Path,
        facts: &Facts,
    ) -> Result<Option<(Timestamp, u64)>, TlsError> {
        let Some(id) = certificate_id(facts) else { return Ok(None) };
        let account = self.account(config, path).await?;
        let asked = timeout(config.order_time, account.renewal_info(&id)).await;
        match asked.map_err(|_| TlsError::Timeout("the renewal information"))? {
            Ok((info, again)) => {
                let window = info.suggested_window;
                let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
                Ok(in_window(window, rand::random()).map(|at| (at, again.as_secs())))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(acme("ask when to renew")(error)),
        }
    }
}

/// How the authority calls a certificate of its own (RFC 9773 section 4.1).
pub(crate) fn certificate_id(facts: &Facts) -> Option<CertificateIdentifier<'static>> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes).into();
    Some(CertificateIdentifier {
        authority_key_identifier: encode(facts.authority_key.as_deref()?),
        serial: encode(&facts.serial),
    })
}

/// Wraps an error of the client.
pub(crate) fn acme(step: &'static str) -> impl Fn(Error) -> TlsError {
    move |source| TlsError::Acme { step, source: Box::new(source) }
}

async fn load_or_create(config: &AcmeConfig, path: &std::path::Path) -> Result<Account, TlsError> {
    let builder =
        Account::builder_with_http(Box::new(Client::new(config.acme_ca_file.as_deref())?));
    if path.exists() {
        if let Some(warning) = loose_mode(path) {
            tracing::warn!("{warning}");
        }
        let stored: AccountCredentials = serde_json::from_str(&read(path)?)
            .map_err(|error| acme("read the stored account")(Error::Json(error)))?;
        return builder.from_credentials(stored).await.map_err(acme("use the stored account"));
    }
    let contact: Vec<&str> = config.contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: config.terms_agreed,
        only_return_existing: false,
    };
    let external = match &config.external_account {
        Some(external) => {
            let key = external.hmac_key.trim_end_matches('=');
            let key = BASE64_URL_SAFE_NO_PAD.decode(key).map_err(|_| {
                TlsError::Config("the external account's key is not base64url".to_owned())
            })?;
            Some(ExternalAccountKey::new(external.key_id.clone(), &key))
        }
        None => None,
    };
    let (account, credentials) = builder
        .create(&new, config.directory.clone(), external.as_ref())
        .await
        .map_err(acme("make an account"))?;
    let text = serde_json::to_string(&credentials)
        .map_err(|error| acme("store the account")(Error::Json(error)))?;
    write(path, &text, 0o600)?;
    tracing::info!(directory = config.directory, "made an account at the acme authority");
    Ok(account)
}
