//! One look at one resource: what both kinds have in common.
//!
//! A look is idempotent and may be cut off anywhere: all that it makes has a fixed name, and a status is stored only over the version of the
//! resource that was looked at. What is wrong with one resource is told in its own status and stops no other: each is looked at for itself,
//! even one whose text this program cannot read.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Context, kube_error, status_code};
use super::driver::Place;
use super::status::{Phase, Status};
use crate::cluster::client::Fleet;
use crate::error::{Error, Result};

/// Keeps a resource until its driver is gone.
const FINALIZER: &str = "baler.dev/driver";
/// How often a resource that cannot be done as it is written is looked at again: what it names may be made later.
const REFUSED_AGAIN: Duration = Duration::from_secs(15);
/// How long a driver that ends is given before it is looked for again. Its end is told by a watch; this is for one that was missed.
const LEAVING_AGAIN: Duration = Duration::from_secs(5);
/// How soon a resource that has changed meanwhile is looked at again.
const STALE_AGAIN: Duration = Duration::from_millis(200);
/// How long reading the state of a job or query may take in one look; a query's brokers get 6 s of it.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the scheduler may take to cancel what a driver left behind.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(15);

/// What a look at a resource found, and when to look again.
pub(super) struct Look {
    pub(super) status: Status,
    pub(super) again: Option<Duration>,
}

/// A kind of resource which has a driver.
pub(super) trait Driven:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its kind.
    const KIND: &'static str;
    /// Whether it can be complete.
    const ENDS: bool;
    /// The label of its pods.
    const LABEL: &'static str;

    /// Its status, if it has one.
    fn status(&self) -> Option<&Status>;
    /// Sets its status.
    fn set_status(&mut self, status: Status);
    /// Name of its job or query in the state folder, the folder, and the scheduler.
    fn work<'a>(&'a self, context: &'a Context) -> Work<'a>;
    /// Makes what is missing and says how it is.
    fn drive(&self, context: &Context, place: &Place, before: Status) -> impl Future<Output = Result<Look>> + Send;
    /// Whether its driver is gone; removes it if it is not.
    fn remove_driver(context: &Context, place: &Place) -> impl Future<Output = Result<bool>> + Send;
}

/// What a resource is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) name: &'a str,
    pub(super) state: &'a str,
    pub(super) scheduler: Option<&'a str>,
}

/// What is read of the state at `state`. One that cannot be read is told in the status, and the driver goes on.
pub(super) async fn read_state<T>(status: &mut Status, state: &str, read: impl Future<Output = Result<T>>) -> Option<T> {
    let problem = match tokio::time::timeout(READ_TIMEOUT, read).await {
        Ok(Ok(found)) => {
            status.set("StateReadable", true, "Read", "");
            return Some(found);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("{state} does not answer"),
    };
    status.set("StateReadable", false, "Unreadable", &problem);
    None
}

/// Looks at one resource.
///
/// # Errors
/// Transient ones; whoever calls tries again. All others are told in the resource's status.
pub(super) async fn reconcile<K: Driven>(guarded: Arc<DeserializeGuard<K>>, context: Arc<Context>) -> Result<Action> {
    context.counts().reconciled();
    let meta = guarded.meta();
    let place = place::<K>(meta)?;
    let looked = if meta.deletion_timestamp.is_some() {
        remove(guarded.0.as_ref().ok(), meta, &place, &context).await
    } else {
        match &guarded.0 {
            Ok(resource) => keep(resource, &place, &context).await,
            Err(invalid) => reject::<K>(meta, &invalid.error, &context).await,
        }
    };
    match looked {
        Ok(action) => Ok(action),
        // Another version is there already, and a look at it follows.
        Err(Interruption::Stale) => Ok(Action::requeue(STALE_AGAIN)),
        Err(Interruption::Failed(error)) => Err(error),
    }
}

/// Why a look had no end.
enum Interruption {
    /// The resource has changed, or is gone, since it was seen.
    Stale,
    /// A call failed which may succeed later.
    Failed(Error),
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error of a call about the resource itself.
fn interruption(action: &str, error: &kube::Error) -> Interruption {
    match status_code(error) {
        Some(404 | 409) => Interruption::Stale,
        _ => Interruption::Failed(kube_error(action, error)),
    }
}

/// When to look again after a failure.
pub(super) fn again<K: Driven>(guarded: &DeserializeGuard<K>, error: &Error, context: &Context) -> Action {
    context.counts().failed();
    tracing::warn!(kind = K::KIND, name = guarded.meta().name, %error, "a look at a resource failed; it is repeated");
    Action::requeue(LEAVING_AGAIN)
}

fn place<K: Driven>(meta: &ObjectMeta) -> Result<Place> {
    let incomplete = || Error::internal("a resource has no name or uid");
    let name = meta.name.clone().ok_or_else(incomplete)?;
    let owner = OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::KIND.to_string(),
        name: name.clone(),
        uid: meta.uid.clone().ok_or_else(incomplete)?,
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    Ok(Place { name: format!("{}-{name}", K::KIND.to_lowercase()), owner, label: (K::LABEL.to_string(), name) })
}

async fn keep<K: Driven>(resource: &K, place: &Place, context: &Context) -> Result<Action, Interruption> {
    let name = resource.name_any();
    if !resource.finalizers().iter().any(|one| one == FINALIZER) {
        set_finalizers::<K>(resource.meta(), true, context).await?;
        // The change itself is seen, and a look at it follows.
        return Ok(Action::requeue(LEAVING_AGAIN));
    }
    let before = resource.status().cloned().unwrap_or_default();
    let Look { status, again } = match resource.drive(context, place, before.clone()).await {
        Ok(look) => look,
        Err(error) if error.is_retryable() => return Err(error.into()),
        Err(error) => Look { status: before.clone().refused(&error), again: Some(REFUSED_AGAIN) },
    };
    let status = status.settled(resource.meta().generation.unwrap_or_default(), K::ENDS);
    context.counts().note(K::KIND, &name, Some(status.phase));
    if status != before {
        let mut changed = resource.clone();
        changed.set_status(status.clone());
        // Over the version that was looked at: an operator which has lost its lease cannot overwrite what its successor says.
        let stored = context.api::<K>().replace_status(&name, &PostParams::default(), &changed).await;
        stored.map_err(|e| interruption("storing the status", &e))?;
        if (status.phase, &status.message) != (before.phase, &before.message) || resource.status().is_none() {
            let type_ = if matches!(status.phase, Phase::Failed | Phase::Invalid) { EventType::Warning } else { EventType::Normal };
            context.tell(&resource.object_ref(&()), type_, status.phase.name(), &status.message).await;
        }
    }
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// Says of a resource that this program cannot read it: in its status, or where that cannot be stored by an event.
async fn reject<K: Driven>(meta: &ObjectMeta, problem: &str, context: &Context) -> Result<Action, Interruption> {
    let name = meta.name.clone().unwrap_or_default();
    let resources: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &context.namespace, &ApiResource::erase::<K>(&()));
    let stored = resources.get(&name).await.map_err(|e| interruption("reading a resource", &e))?;
    let before: Status = serde_json::from_value(stored.data["status"].clone()).unwrap_or_default();
    let error = Error::config(format!("this operator cannot read the resource: {problem}"));
    let status = before.clone().refused(&error).settled(meta.generation.unwrap_or_default(), K::ENDS);
    context.counts().note(K::KIND, &name, Some(status.phase));
    if status != before {
        let patch = serde_json::json!({"status": status});
        let note = match resources.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => status.message.clone(),
            // The type's rules cannot be evaluated over a field of another kind than theirs, so that the API server takes no change of such a
            // resource, not even of its status. The event is all there is then.
            Err(error) if status_code(&error) == Some(422) => {
                format!("{}; and its status cannot be stored, because the API server refuses the resource as it is", status.message)
            }
            Err(error) => return Err(interruption("storing the status", &error)),
        };
        let mut about = stored.object_ref(&ApiResource::erase::<K>(&()));
        about.namespace = Some(context.namespace.clone());
        context.tell(&about, EventType::Warning, Phase::Invalid.name(), &note).await;
    }
    Ok(Action::requeue(REFUSED_AGAIN))
}

/// Lets a resource go when its driver is gone and nothing of it runs any more. The job's state stays.
async fn remove<K: Driven>(resource: Option<&K>, meta: &ObjectMeta, place: &Place, context: &Context) -> Result<Action, Interruption> {
    if !meta.finalizers.iter().flatten().any(|one| one == FINALIZER) {
        return Ok(Action::await_change());
    }
    if !K::remove_driver(context, place).await? {
        return Ok(Action::requeue(LEAVING_AGAIN));
    }
    let name = meta.name.clone().unwrap_or_default();
    if let Some(resource) = resource {
        let work = resource.work(context);
        let is_over = resource.status().is_some_and(|status| status.phase == Phase::Complete);
        if !is_over {
            cancel(resource, work, context).await;
            let note = format!("its driver is stopped; the state of `{}` at {} stays", work.name, work.state);
            context.tell(&resource.object_ref(&()), EventType::Normal, "Cancelled", &note).await;
        }
    }
    set_finalizers::<K>(meta, false, context).await?;
    context.forget(meta.uid.as_deref().unwrap_or_default());
    context.counts().note(K::KIND, &name, None);
    Ok(Action::await_change())
}

/// Cancels what a driver that was killed left running on the fleet. One that was stopped has done so itself; a scheduler which cannot be
/// reached must not keep the resource for ever.
async fn cancel<K: Driven>(resource: &K, work: Work<'_>, context: &Context) {
    let Some(scheduler) = work.scheduler else { return };
    let cancelled = async { Fleet::connect(scheduler, &context.parts).await?.cancel_parts(work.name).await };
    let problem = match tokio::time::timeout(CANCEL_TIMEOUT, cancelled).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => format!("{scheduler} does not answer"),
    };
    let note = format!("what may still run on the fleet was not cancelled: {problem}");
    context.tell(&resource.object_ref(&()), EventType::Warning, "NotCancelled", &note).await;
}

/// Adds or removes our finalizer, over the version which was seen.
async fn set_finalizers<K: Driven>(meta: &ObjectMeta, is_kept: bool, context: &Context) -> Result<(), Interruption> {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|one| one != FINALIZER);
    if is_kept {
        finalizers.push(FINALIZER.to_string());
    }
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version}});
    let resources: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &context.namespace, &ApiResource::erase::<K>(&()));
    let name = meta.name.as_deref().unwrap_or_default();
    let patched = resources.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map(drop).map_err(|e| interruption("setting the finalizer", &e))
}

/// An object of ours, if it is there.
///
/// # Errors
/// Conflict, when one of that name is somebody else's.
pub(super) async fn find<T>(context: &Context, place: &Place) -> Result<Option<T>>
where
    T: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let kind = T::kind(&());
    let found = context.api::<T>().get_opt(&place.name).await.map_err(|e| kube_error(&format!("looking for the {kind}"), &e))?;
    let Some(found) = found else { return Ok(None) };
    if !found.owner_references().iter().any(|owner| owner.uid == place.owner.uid) {
        return Err(Error::conflict(format!("the {kind} `{}` is not this resource's; remove it, or take another name", place.name)));
    }
    Ok(Some(found))
}

/// Removes an object of ours with its pods; `true` when nothing is left of it. Somebody else's is not touched.
pub(super) async fn remove_child<T>(context: &Context, place: &Place) -> Result<bool>
where
    T: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let child = match find::<T>(context, place).await {
        Ok(Some(child)) => child,
        Ok(None) => return Ok(true),
        Err(error) if error.is_retryable() => return Err(error),
        Err(_not_ours) => return Ok(true),
    };
    if child.meta().deletion_timestamp.is_none() {
        let same = Preconditions { uid: child.uid(), resource_version: None };
        // In the foreground: it is gone when its pods are, so that nothing writes any more.
        let how =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), preconditions: Some(same), ..DeleteParams::default() };
        match context.api::<T>().delete(&place.name, &how).await {
            Ok(_) => {}
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
            Err(error) => return Err(kube_error("removing the driver", &error)),
        }
    }
    Ok(false)
}
