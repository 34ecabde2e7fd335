//! What a driver is made of: the PodTemplate and the SQL.

use k8s_openapi::api::core::v1::{ConfigMap, PodTemplate};
use kube::api::{Patch, PatchParams};

use super::context::{Context, kube_error};
use super::driver::Place;
use super::reconcile::find;
use super::resource::Sql;
use crate::error::{Error, Result};

/// Under which name the operator sets fields.
pub(super) const MANAGER: &str = "baler-operator";

/// A PodTemplate of the namespace.
///
/// # Errors
/// Config, when there is none of that name.
pub(super) async fn template(context: &Context, name: &str) -> Result<PodTemplate> {
    let found = context.api::<PodTemplate>().get_opt(name).await.map_err(|e| kube_error("reading the pod template", &e))?;
    found.ok_or_else(|| Error::config(format!("there is no PodTemplate `{name}` in namespace {}", context.namespace)))
}

/// Keeps SQL that stands in the resource as a ConfigMap, and looks whether one which is named has the key.
///
/// # Errors
/// Config, when it has not.
pub(super) async fn apply_sql(context: &Context, place: &Place, sql: &Sql) -> Result<()> {
    let maps = context.api::<ConfigMap>();
    if let Some(map) = &sql.config_map {
        let found = maps.get_opt(&map.name).await.map_err(|e| kube_error("reading the SQL's ConfigMap", &e))?;
        let has_key = found.as_ref().is_some_and(|found| found.data.as_ref().is_some_and(|data| data.contains_key(&map.key)));
        if !has_key {
            let missing = if found.is_some() { "has no such key" } else { "is not there" };
            return Err(Error::config(format!("the SQL is to be key `{}` of ConfigMap `{}`, which {missing}", map.key, map.name)));
        }
    }
    if let Some(map) = place.config_map(sql) {
        let own = Place { name: map.metadata.name.clone().unwrap_or_default(), ..place.clone() };
        find::<ConfigMap>(context, &own).await?;
        let stored = maps.patch(&own.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await;
        stored.map_err(|e| kube_error("storing the SQL's ConfigMap", &e))?;
    }
    Ok(())
}
