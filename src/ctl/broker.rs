//! The Redis of a pool or of a Celery set-up, where the caller may read its URL and can reach it.

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::DynamicObject;
use serde_json::json;

use super::cluster::Cluster;
use super::error::Error;
use crate::api::{Celery, CrewWorkerPool};
use crate::store::{Access, Keys, Secret, Settings, Store};

/// Where Redis is, as a Secret of the namespace says.
pub async fn access(cluster: &Cluster, secret: &str) -> Result<Access, Error> {
    let read = cluster.others::<KubeSecret>().get(secret).await;
    let data = read.map_err(Error::call(format!("reading the Secret {secret}")))?.data.unwrap_or_default();
    let text = |key: &str| {
        let text = data.get(key).map(|value| String::from_utf8_lossy(&value.0).trim().to_owned());
        Ok(text.filter(|text| !text.is_empty()))
    };
    let url = text("REDIS_URL")?.ok_or_else(|| Error::NotPossible(format!("the Secret {secret} has no REDIS_URL")))?;
    Access::of_secret(Secret::new(url), text)
}

/// Connects without being an operator: nothing that needs a leader can be done.
pub async fn connect(access: Access) -> Result<Store, Error> {
    let settings = Settings { access, cluster_uid: "kubectl".into(), lease: "kubectl".into() };
    Store::connect(&settings).await.map_err(|error| Error::NotPossible(format!("connecting to Redis: {error}")))
}

/// The Redis of a pool, with the names that its spec gives.
pub async fn of_pool(cluster: &Cluster, pool: &DynamicObject) -> Result<Store, Error> {
    let pool: CrewWorkerPool = serde_json::from_value(json!(pool))
        .map_err(|_| Error::NotPossible("this program does not understand the CrewWorkerPool".to_owned()))?;
    let access = access(cluster, &pool.spec.redis.secret_name).await?;
    connect(Access { keys: keys(&pool.spec.celery), ..access }).await
}

/// What things are called on the Redis of a pool.
pub fn keys(celery: &Celery) -> Keys {
    Keys {
        separator: celery.separator.clone(),
        priority_steps: celery.priority_steps.iter().filter_map(|step| u8::try_from(*step).ok()).collect(),
        global_prefix: celery.global_key_prefix.clone().unwrap_or_default(),
        result_prefix: celery.result_key_prefix().to_owned(),
        unacked: celery.unacked_key.clone(),
    }
}
