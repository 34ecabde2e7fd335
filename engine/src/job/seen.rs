//! What a watcher knows of a job. Dashboard and operator look again and again, and read each file once, unless another one took its name:
//! a job may be removed and begun anew, and `dead-letters retry` lets splits be done once more.

use std::collections::HashMap;
use std::sync::Arc;

use smol_str::SmolStr;

use super::folder::FileVersion;
use super::manifest::Manifest;
use super::run::RECEIPTS_AT_ONCE_MAX;
use super::state::JobState;
use crate::connector::receipt::Receipt;
use crate::error::Result;

/// What is kept of one job: `M` of its manifest, `R` of each receipt, if receipts are read at all.
#[derive(Debug)]
pub struct SeenJob<M, R> {
    manifest: Option<(FileVersion, Arc<M>)>,
    receipts: HashMap<SmolStr, (FileVersion, R)>,
}

impl<M, R> Default for SeenJob<M, R> {
    fn default() -> Self {
        Self { manifest: None, receipts: HashMap::new() }
    }
}

impl<M: From<Manifest>, R> SeenJob<M, R> {
    /// What its manifest says now; `None` before it was begun. What was known of another job of this name is forgotten.
    ///
    /// # Errors
    /// As the store's; Decode for a file of a later version.
    pub async fn manifest(&mut self, state: &JobState) -> Result<Option<Arc<M>>> {
        let now = state.manifest_version().await?;
        if now.is_none() || self.manifest.as_ref().map(|(version, _)| *version) != now {
            *self = Self::default();
            let manifest = state.manifest().await?;
            self.manifest = now.zip(manifest.map(|manifest| Arc::new(M::from(manifest))));
        }
        Ok(self.manifest.as_ref().map(|(_, manifest)| Arc::clone(manifest)))
    }

    /// What is known of all receipts.
    pub fn receipts(&self) -> impl Iterator<Item = &R> + Clone {
        self.receipts.values().map(|(_, receipt)| receipt)
    }

    /// What is known of a split's receipt, if it has one.
    pub fn receipt(&self, split: &str) -> Option<&R> {
        self.receipts.get(split).map(|(_, receipt)| receipt)
    }
}

impl<M, R: for<'a> From<&'a Receipt>> SeenJob<M, R> {
    /// Reads the receipts which are new, and forgets those which are gone. Cancel-safe: what was read stays known.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn read_receipts(&mut self, state: &JobState) -> Result<()> {
        let now: HashMap<String, FileVersion> = state.receipt_versions().await?.into_iter().collect();
        self.receipts.retain(|split, (version, _)| now.get(split.as_str()) == Some(version));
        let new: Vec<&String> = now.keys().filter(|split| !self.receipts.contains_key(split.as_str())).collect();
        for splits in new.chunks(RECEIPTS_AT_ONCE_MAX) {
            for receipt in state.find_receipts(splits).await? {
                if let Some(version) = now.get(receipt.split.as_str()) {
                    self.receipts.insert(receipt.split.clone(), (*version, R::from(&receipt)));
                }
            }
        }
        Ok(())
    }
}
