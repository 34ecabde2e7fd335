//! `baler operator`: jobs and queries as resources of Kubernetes.
//!
//! | place | holds |
//! | --- | --- |
//! | [`resource`] | `BalerJob` and `BalerStream`: their fields, and their types for the API server |
//! | [`status`] | what a resource says of itself |
//! | `reconcile` | one look at one resource: finalizer, status, events, removal; what is wrong with it |
//! | `job`, `stream` | the two kinds: from what is found to what follows |
//! | `driver`, `parts` | the objects which run it: pod, Job, Deployment, the SQL's ConfigMap |
//! | `progress` | figures from the state folder |
//! | `lease` | which of several operators acts |
//! | [`context`] | what all looks share; events; the operator's own figures |
//!
//! The operator keeps nothing: what is to be done is in the resources, what is done in the state folder. It may be killed at any moment, and
//! another one goes on; drivers do not notice.

pub mod context;
mod driver;
mod job;
mod lease;
mod parts;
mod progress;
mod reconcile;
pub mod resource;
pub mod status;
mod stream;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Controller, Error as ControllerError};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;

use self::context::{Context, Counts, Options, kube_error, status_code};
use self::lease::Election;
use self::reconcile::{Driven, again, reconcile};
use self::resource::{BalerJob, BalerStream};
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::stop_signal;
use crate::session::SessionParts;

/// Resources in one answer of a list. Each may hold 256 KiB of SQL.
pub(crate) const PAGE: u32 = 50;
/// Requests to look at all resources which may wait: one look covers every resource which was found meanwhile.
pub(crate) const LOOKS_WAITING_MAX: usize = 1;
/// How soon a resource which was not found is sought again.
const SEEK_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the resources of one namespace until the process is asked to stop; returns the signal's name. While another operator holds the
/// lease it waits.
///
/// # Errors
/// Config, without an API server's address or its resource types; Unreachable, when it does not answer; Transient, when the lease is lost: then
/// another operator acts, and this one has to be started anew.
pub async fn serve(options: Options, parts: SessionParts, counts: Arc<Counts>) -> Result<&'static str> {
    let no_config = |e| Error::config("no Kubernetes API: neither in a pod with a service account, nor KUBECONFIG").with_source(e);
    let config = Config::infer().await.map_err(no_config)?;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let url = config.cluster_url.to_string();
    let client =
        Client::try_from(config).map_err(|e| Error::config(format!("cannot speak with the Kubernetes API at {url}")).with_source(e))?;
    check_type::<BalerJob>(&client, &namespace, &url).await?;
    check_type::<BalerStream>(&client, &namespace, &url).await?;
    let mut election = Election::new(Api::namespaced(client.clone(), &namespace), options.lease);
    let context = Arc::new(Context::new(client, namespace.clone(), options, parts, election.holder(), Arc::clone(&counts))?);
    tracing::info!(namespace, holder = election.holder(), "the operator is up");
    tokio::select! {
        () = election.acquire() => {}
        signal = stop_signal() => return signal,
    }
    tracing::info!(namespace, holder = election.holder(), "this operator acts");
    counts.lead(true);
    let ended = tokio::select! {
        lost = election.hold() => return Err(lost),
        ((), ()) = async { tokio::join!(run_jobs(Arc::clone(&context)), run_streams(Arc::clone(&context))) } => {
            Err(Error::internal("the watches of the operator ended"))
        }
        signal = stop_signal() => signal,
    };
    if let Err(error) = election.release().await {
        tracing::warn!(%error, "the lease was not given back; another operator acts when it is over");
    }
    ended
}

/// Whether the API server knows a kind, and we may list it.
async fn check_type<K>(client: &Client, namespace: &str, url: &str) -> Result<()>
where
    K: Driven,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    match api.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(error) if status_code(&error) == Some(404) => Err(Error::config(format!(
            "the API server at {url} does not know the kind {}; apply k8s/components/operator/types.yaml (or `baler operator --print-types`)",
            K::KIND
        ))),
        Err(error) if status_code(&error).is_some() => Err(kube_error(&format!("listing the resources of kind {}", K::KIND), &error)),
        Err(error) => Err(Error::new(ErrorKind::Unreachable, format!("the Kubernetes API at {url} does not answer")).with_source(error)),
    }
}

async fn run_jobs(context: Arc<Context>) {
    run::<BalerJob, Job>(context).await;
}

async fn run_streams(context: Arc<Context>) {
    run::<BalerStream, Deployment>(context).await;
}

/// Looks at every resource of kind `K` whenever it or its `Child` changes.
async fn run<K, Child>(context: Arc<Context>)
where
    K: Driven,
    Child: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let (resources, children) =
        (Api::<DeserializeGuard<K>>::namespaced(context.client.clone(), &context.namespace), context.api::<Child>());
    let ours = watcher::Config::default().labels("app.kubernetes.io/managed-by=baler-operator");
    let (found, looks_at_all) = mpsc::channel(LOOKS_WAITING_MAX);
    let (missed, sought) = mpsc::unbounded();
    let controller = Controller::new(resources, watcher::Config::default().page_size(PAGE)).owns(children, ours);
    let (store, shared) = (controller.store(), Arc::clone(&context));
    let looks = controller
        .reconcile_all_on(looks_at_all)
        .run(reconcile::<K>, |guarded, error, context| again(&guarded, error, &context), context)
        .for_each(move |looked| {
            if let Some(name) = report::<K>(looked.err())
                && let Err(error) = missed.unbounded_send(name)
            {
                tracing::debug!(%error, "the operator ends");
            }
            std::future::ready(())
        });
    let seeks = sought.for_each_concurrent(None, |name| seek::<K>(name, &shared, &store, found.clone()));
    tokio::join!(looks, seeks);
}

/// Logs what the controller itself could not do; it goes on by itself. Failed looks are logged where they are repeated. Returns the name of a
/// resource which the controller was to look at and did not have.
fn report<K: Driven>(error: Option<ControllerError<Error, watcher::Error>>) -> Option<String> {
    match error {
        None | Some(ControllerError::ReconcilerFailed(..)) => None,
        Some(ControllerError::ObjectNotFound(resource)) => Some(resource.name),
        Some(error) => {
            tracing::warn!(kind = K::KIND, %error, "a watch failed; it is begun again");
            None
        }
    }
}

/// Has a resource looked at which the controller was told of and did not have. Mostly it was removed meanwhile. But when a watch is begun anew
/// with a list, the controller is told of each resource in it before it has them, which is when the whole list has come; and it forgets what it
/// was told. A new resource was never looked at then.
async fn seek<K: Driven>(name: String, context: &Context, store: &Store<DeserializeGuard<K>>, mut found: mpsc::Sender<()>) {
    let resources = Api::<DeserializeGuard<K>>::namespaced(context.client.clone(), &context.namespace);
    let place = ObjectRef::new(&name).within(&context.namespace);
    loop {
        tokio::time::sleep(SEEK_AGAIN).await;
        if store.get(&place).is_some() {
            tracing::info!(kind = K::KIND, name, "a resource of a new list is looked at again");
            if let Err(error) = found.try_send(()) {
                tracing::debug!(%error, "a look at all resources is due already");
            }
            return;
        }
        match resources.get_metadata_opt(&name).await {
            Ok(None) => {
                tracing::debug!(kind = K::KIND, name, "a resource is gone");
                return;
            }
            Ok(Some(_)) => {}
            Err(error) => tracing::debug!(kind = K::KIND, name, %error, "a resource is sought again"),
        }
    }
}
