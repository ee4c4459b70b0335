//! The calls about a function's versions, domains and invocations.

use bytes::Bytes;
use http::{Method, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{Answer, Client, SHORT, to_json};
use crate::{
    AddDomain, Domain, Function, FunctionName, FunctionVersion, InvocationPolicy, Promote, SetTag,
    Sign, SignedUrl, TagName, TagWeight,
};

impl Client {
    /// Lists the versions that can be reached: the current one and those with a tag.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn versions(&self, name: &FunctionName) -> Answer<Vec<FunctionVersion>> {
        self.list(&format!("/v1/functions/{name}/versions")).await
    }

    /// Makes a tag or moves it to another version.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn set_tag(
        &self,
        name: &FunctionName,
        tag: &TagName,
        version: u32,
    ) -> Answer<Function> {
        self.put(&format!("/v1/functions/{name}/tags/{tag}"), &SetTag { version }).await
    }

    /// Removes a tag, and the version if nothing else leads to it.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn remove_tag(&self, name: &FunctionName, tag: &TagName) -> Answer<()> {
        self.delete(&format!("/v1/functions/{name}/tags/{tag}")).await
    }

    /// Makes another version the current one. The one before it is gone if it has no tag.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn promote(&self, name: &FunctionName, body: &Promote) -> Answer<Function> {
        self.post(&format!("/v1/functions/{name}/promote"), Some(body), SHORT).await
    }

    /// Splits the plain name's requests between tags; an empty split leads all of them to the
    /// current version.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn split(&self, name: &FunctionName, split: &[TagWeight]) -> Answer<Function> {
        self.put(&format!("/v1/functions/{name}/split"), split).await
    }

    /// How a function may be invoked.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn invocation(&self, name: &FunctionName) -> Answer<InvocationPolicy> {
        self.get(&format!("/v1/functions/{name}/invocation")).await
    }

    /// Sets how a function may be invoked, all of it.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn set_invocation(
        &self,
        name: &FunctionName,
        policy: &InvocationPolicy,
    ) -> Answer<InvocationPolicy> {
        self.put(&format!("/v1/functions/{name}/invocation"), policy).await
    }

    /// Signs a URL of a function.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn sign(&self, name: &FunctionName, body: &Sign) -> Answer<SignedUrl> {
        self.post(&format!("/v1/functions/{name}/sign"), Some(body), SHORT).await
    }

    /// Claims a domain for a function; the answer says which TXT record proves the claim.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn add_domain(&self, name: &FunctionName, domain: &str) -> Answer<Domain> {
        let body = AddDomain { domain: domain.to_owned() };
        self.post(&format!("/v1/functions/{name}/domains"), Some(&body), SHORT).await
    }

    /// Lists a function's domains.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn domains(&self, name: &FunctionName) -> Answer<Vec<Domain>> {
        self.list(&format!("/v1/functions/{name}/domains")).await
    }

    /// Looks for the TXT record that proves the claim; the domain leads to the function then.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn verify_domain(&self, name: &FunctionName, domain: &str) -> Answer<Domain> {
        let path = format!("/v1/functions/{name}/domains/{domain}/verify");
        self.post(&path, None::<&()>, SHORT).await
    }

    /// Gives a domain up.
    ///
    /// # Errors
    ///
    /// As every call: [`ClientError`](crate::ClientError).
    pub async fn remove_domain(&self, name: &FunctionName, domain: &str) -> Answer<()> {
        self.delete(&format!("/v1/functions/{name}/domains/{domain}")).await
    }

    pub(super) async fn put<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Answer<T> {
        let request = self.request(Method::PUT, path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        self.json(request, Bytes::from(to_json(body)?), SHORT).await
    }
}
