//! The Secret that says where a pool's Redis is: read when the pool connects, and again and again after.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, ResourceExt};

use super::problem::problem;
use crate::api::REDIS_SECRET_LABEL;
use crate::core::status::{PoolProblem, PoolProblemKind};
use crate::operator::context::Context;
use crate::operator::state::pool::Handle;
use crate::store::{Access, Keys, Secret, Settings};

/// How often the Secret is read although nothing fails. The operator may `get` it and not watch it.
const EVERY: Duration = Duration::from_secs(20);
/// Readings in a row that must find it unusable: a tool that replaces it may delete it first.
const UNUSABLE: u32 = 2;

/// What a Secret says.
#[derive(Clone)]
pub struct Found {
    /// `metadata.resourceVersion`.
    pub version: Arc<str>,
    /// Where Redis is, and how to get in.
    pub settings: Settings,
}

/// Why what was read before is not to be used any more.
pub enum Change {
    /// It says something else.
    To(Box<Found>),
    /// It cannot be used.
    Unusable(PoolProblem),
}

/// Reads the Secret again and again until it says something else than `current`.
pub async fn follow(ctx: &Context, pool: &Handle, current: &Found) -> Change {
    let mut unusable = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        match Box::pin(read(ctx, pool)).await {
            Ok(found) if found.settings == current.settings => {
                unusable = 0;
                pool.uses_secret(&found.version);
            }
            Ok(found) => {
                tracing::info!(pool = %pool.key, version = %found.version, "the Secret of the pool has changed; connecting as it says now");
                return Change::To(Box::new(found));
            }
            // Nothing is known of the Secret when the API server does not answer.
            Err(problem) if problem.kind == PoolProblemKind::Connecting => {
                tracing::warn!(pool = %pool.key, detail = %problem.detail, "reading the Secret again failed; retrying in 20 s");
            }
            Err(problem) => {
                unusable += 1;
                if unusable >= UNUSABLE {
                    return Change::Unusable(problem);
                }
            }
        }
    }
}

/// What is wrong with a namespace that the operator does not look into.
pub fn not_granted(ctx: &Context, namespace: &str) -> PoolProblem {
    problem(
        PoolProblemKind::NamespaceNotGranted,
        format!("the operator does not look into namespace {namespace:?}; {}", ctx.namespaces.how_to_add(namespace)),
    )
}

/// Reads the pool's Secret. It must carry the label: else a pool's author could send any Secret anywhere.
pub async fn read(ctx: &Context, pool: &Handle) -> Result<Found, PoolProblem> {
    let (namespace, name) = (&pool.key.namespace, &pool.spec.redis.secret_name);
    if !ctx.namespaces.contains(namespace) {
        return Err(not_granted(ctx, namespace));
    }
    let api: Api<KubeSecret> = Api::namespaced(ctx.client.clone(), namespace);
    let secret = match api.get_opt(name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            return Err(problem(
                PoolProblemKind::SecretNotFound,
                format!(
                    "Secret {name:?} does not exist; create it with the key REDIS_URL and the label {REDIS_SECRET_LABEL}=true"
                ),
            ));
        }
        Err(kube::Error::Api(error)) if error.code == 403 => {
            return Err(problem(
                PoolProblemKind::NamespaceNotGranted,
                format!(
                    "the operator may not read Secret {name:?}; bind its role in namespace {namespace:?}: add the namespace \
                     to the chart's value poolNamespaces or, where a label selects it, create the RoleBinding of the \
                     chart's README; where rbac.secretNames is set, add the Secret to it"
                ),
            ));
        }
        Err(error) => {
            return Err(problem(PoolProblemKind::Connecting, format!("Secret {name:?} cannot be read: {error}")));
        }
    };
    if secret.labels().get(REDIS_SECRET_LABEL).map(String::as_str) != Some("true") {
        return Err(problem(
            PoolProblemKind::SecretNotLabelled,
            format!(
                "Secret {name:?} lacks the label {REDIS_SECRET_LABEL}=true; set it with: kubectl label secret {name} -n {namespace} {REDIS_SECRET_LABEL}=true"
            ),
        ));
    }
    let value = |key: &str| -> Result<Option<String>, PoolProblem> {
        let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else { return Ok(None) };
        match String::from_utf8(bytes.0.clone()) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(_) => Err(problem(PoolProblemKind::SecretInvalid, format!("key {key} of Secret {name:?} is not text"))),
        }
    };
    let Some(url) = value("REDIS_URL")? else {
        return Err(problem(PoolProblemKind::SecretInvalid, format!("Secret {name:?} has no key REDIS_URL")));
    };
    let access = Access { keys: keys(pool), ..Access::of_secret(Secret::new(url), value)? };
    let settings = Settings { access, cluster_uid: ctx.cluster_uid.clone(), lease: ctx.lease.clone() };
    let version = secret.resource_version().unwrap_or_default();
    Ok(Found { version: version.into(), settings })
}

fn keys(pool: &Handle) -> Keys {
    let celery = &pool.spec.celery;
    let mut keys = Keys::default();
    keys.separator.clone_from(&celery.separator);
    keys.priority_steps = celery.priority_steps.iter().filter_map(|step| u8::try_from(*step).ok()).collect();
    keys.global_prefix = celery.global_key_prefix.clone().unwrap_or_default();
    celery.result_key_prefix().clone_into(&mut keys.result_prefix);
    keys.unacked.clone_from(&celery.unacked_key);
    keys
}
