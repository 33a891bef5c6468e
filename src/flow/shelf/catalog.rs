//! The responses in a store that no larder uses, for tools: read only.

use super::record::Replay;
use crate::rules::address::Digest;
use crate::rules::address::PackId;
use crate::rules::address::Put;
use crate::rules::stored::StoredResponse;
use crate::state::index::Index;
use crate::store::StoreError;
use crate::store::head;
use crate::store::survey::Survey;
use bytes::Bytes;
use std::path::Path;

/// All responses of a stopped store.
#[derive(Debug)]
pub struct Catalog {
    survey: Survey,
    index: Index,
}

impl Catalog {
    /// Reads the journal of the store in `dir`. Blocking.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let mut replay = Replay::default();
        let survey = Survey::open(dir, &mut replay)?;
        let index = replay.finish();
        Ok(Self { survey, index })
    }

    /// Where its parts are, and what is wrong with them.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// All responses, those among them whose tags were purged; by the place of their heads.
    pub fn puts(&self) -> Vec<Put> {
        let (mut puts, _) = self.index.page(0, u32::MAX);
        puts.sort_unstable_by_key(|put| (put.head.pack, put.head.offset));
        puts
    }

    /// How many distinct bodies there are.
    pub fn bodies(&self) -> usize {
        self.index.bodies()
    }

    /// Bytes of heads and bodies that are alive.
    pub fn live_bytes(&self) -> u64 {
        self.index.live_bytes()
    }

    /// Bytes alive in one pack.
    pub fn live(&self, pack: PackId) -> u64 {
        self.index.live(pack)
    }

    /// Reads and checks a response's head. `None` when one of its tags was purged. Blocking.
    pub fn head(&self, put: &Put) -> Result<Option<StoredResponse>, StoreError> {
        let location = put.head;
        let bytes = self.survey.read(location)?;
        let (_, response) = head::decode(&bytes)
            .filter(|(_, head)| head.key == put.key && head.variant == put.variant)
            .filter(|(_, head)| head.body.name() == put.body)
            .ok_or(StoreError::Corrupt { location })?;
        let covered = self.index.covers_tags(put.sequence, &response.tags);
        Ok((!covered).then_some(response))
    }

    /// Reads and checks a response's body, part by part. Blocking.
    pub fn body<'a>(
        &'a self,
        put: &'a Put,
        digest: Digest,
    ) -> impl Iterator<Item = Result<Bytes, StoreError>> + 'a {
        put.parts
            .clone()
            .segments(digest)
            .into_iter()
            .map(|segment| {
                let location = segment.location;
                let bytes = self.survey.read(location)?;
                if Digest::of(&bytes) == segment.digest {
                    return Ok(bytes);
                }
                Err(StoreError::Corrupt { location })
            })
    }
}
