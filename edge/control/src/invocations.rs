//! How a function may be invoked, and URLs that may be used without a key.

use std::sync::Arc;

use edge_api::{FunctionName, Sign, SignedUrl};
use edge_policy::SigningSecret;
use edge_store::Secret;
use http::Method;
use jiff::Timestamp;
use pool_model::{InvocationPolicy, TeamId};

use crate::{ApiError, Control, control::now, functions::no_function, validate};

impl Control {
    /// How a team's function may be invoked.
    pub(crate) async fn invocation(
        &self,
        team: TeamId,
        name: &FunctionName,
    ) -> Result<InvocationPolicy, ApiError> {
        Ok(self.owned_function(team, name.as_str()).await?.invocation)
    }

    /// Sets how a team's function may be invoked: the next request is judged by it.
    pub(crate) async fn set_invocation(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        policy: InvocationPolicy,
    ) -> Result<InvocationPolicy, ApiError> {
        validate::invocation(&policy, &self.outside)?;
        let (control, name) = (Arc::clone(self), name.to_string());
        self.to_the_end(async move {
            // Not while a deploy publishes what it read before.
            let _pools = control.pools.lock().await;
            let set = control.store().set_invocation(team, &name, &policy).await;
            control.directory().forget_function(&name);
            Ok(set?.ok_or_else(|| no_function(&name))?.invocation)
        })
        .await
    }

    /// Signs a URL of a team's function.
    pub(crate) async fn sign(
        self: &Arc<Self>,
        team: TeamId,
        name: &FunctionName,
        wish: Sign,
    ) -> Result<SignedUrl, ApiError> {
        validate::sign(&wish)?;
        let method = wish.method.map(|method| method.parse::<Method>()).transpose();
        let method = method.map_err(|bad| ApiError::field("method", bad))?;
        let secret = self.signing_secret(team, name.as_str()).await?;
        let seconds = i64::try_from(wish.expires_s).map_err(ApiError::internal)?;
        // Whole seconds: that is what is signed.
        let expires = now().as_second().saturating_add(seconds);
        let expires_at = Timestamp::from_second(expires).map_err(ApiError::internal)?;
        let secret = SigningSecret::new(secret.expose());
        let path = edge_policy::sign(&secret, method.as_ref(), &wish.path, expires);
        let url = format!("{}{path}", self.public().function_url(name.as_str()));
        Ok(SignedUrl { url, expires_at })
    }

    /// What a team's function signs with; made when it is first asked for.
    ///
    /// # Errors
    ///
    /// `function_not_found`, and the store's failures.
    pub async fn signing_secret(
        self: &Arc<Self>,
        team: TeamId,
        name: &str,
    ) -> Result<Secret, ApiError> {
        let function = self.owned_function(team, name).await?;
        if let Some(secret) = function.signing_secret {
            return Ok(secret);
        }
        let control = Arc::clone(self);
        self.to_the_end(async move {
            let made = control.store().signing_secret(function.id).await;
            control.directory().forget_function(&function.name);
            made?.ok_or_else(|| no_function(&function.name))
        })
        .await
    }
}
