//! Which versions of a function can be reached, and what a change makes of them. Pure: `live_sql`
//! reads and writes them.
//!
//! A version lives while it is the current one or has a tag. The current one's pool has the
//! function's id; every other one has a pool of its own.

use jiff::Timestamp;
use pool_model::{FunctionId, Port, SnapshotId, TagWeight, TemplateId};

use crate::{FunctionRecord, NewVersion};

/// Most tags of one function: each may be a version with a pool of its own.
pub const TAGS_MAX: usize = 32;

/// A version that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRecord {
    /// Its number.
    pub version: u32,
    /// The pool that serves it.
    pub pool: FunctionId,
    /// The template it was built in.
    pub template: TemplateId,
    /// What its sandboxes are restored from.
    pub snapshot: SnapshotId,
    /// Where its server listens.
    pub port: Port,
    /// What started the server.
    pub start: String,
    /// What was asked until it answered.
    pub ready_path: String,
    /// Longest time of one invocation, milliseconds.
    pub timeout_ms: u64,
    /// Whether invocations may reach the internet.
    pub internet: bool,
    /// When it was deployed.
    pub created_at: Timestamp,
}

/// A name of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The tag, unique in its function.
    pub tag: String,
    /// The version it stands for.
    pub version: u32,
    /// Its share of the requests to the plain name; 0: none.
    pub weight: u32,
}

/// A function with everything of it that can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFunction {
    /// The function, as its current version is.
    pub function: FunctionRecord,
    /// Its versions, the current one too, lowest number first.
    pub versions: Vec<VersionRecord>,
    /// Its tags, in the order of their names.
    pub tags: Vec<TagRecord>,
}

/// What is to become of a function's versions.
#[derive(Debug, Clone)]
pub enum Change {
    /// Another version becomes the current one.
    Promote {
        /// Which one.
        version: u32,
        /// The pool of the one that was current, if that lives on.
        spare: FunctionId,
    },
    /// A tag is made or moved. It keeps its share.
    SetTag {
        /// The tag.
        tag: String,
        /// What it is to stand for.
        version: u32,
    },
    /// A tag goes.
    RemoveTag {
        /// The tag.
        tag: String,
    },
    /// The shares of the plain name's requests are these and no others.
    Split(Vec<TagWeight>),
}

/// Why a change can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No such version can be reached.
    #[error("there is no version {version}: only the current one and those with a tag are kept")]
    NoVersion {
        /// Its number.
        version: u32,
    },
    /// There is no such tag.
    #[error("there is no tag `{tag}`")]
    NoTag {
        /// The tag.
        tag: String,
    },
    /// The tag has a share of the plain name's requests.
    #[error("the tag `{tag}` has a share of the requests: take it out of the split first")]
    InSplit {
        /// The tag.
        tag: String,
    },
    /// There are as many tags as there may be.
    #[error("the function has {TAGS_MAX} tags already")]
    TooManyTags,
    /// The first version can only be the current one.
    #[error("the first version of a function is its current one")]
    FirstIsCurrent,
    /// Nothing would lead to the version.
    #[error("a version that is not to be the current one needs a tag")]
    Unreachable,
}

impl LiveFunction {
    /// A function of which `new` is the first version.
    ///
    /// # Errors
    ///
    /// [`ChangeError::FirstIsCurrent`] if it is not to be promoted.
    pub fn first(new: &NewVersion) -> Result<Self, ChangeError> {
        if !new.promote {
            return Err(ChangeError::FirstIsCurrent);
        }
        let function = new.record(new.id, 1, new.at);
        let versions = vec![function.as_version()];
        let mut live = Self { function, versions, tags: Vec::new() };
        live.tag_new(new, 1)?;
        Ok(live)
    }

    /// The function with one version more. What `new` says of pool and invocations holds for the
    /// whole function, promoted or not.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Unreachable`], [`ChangeError::TooManyTags`].
    pub fn publish(&self, new: &NewVersion) -> Result<Self, ChangeError> {
        if !new.promote && new.tag.is_none() {
            return Err(ChangeError::Unreachable);
        }
        let mut live = self.clone();
        let number = self.function.version_max.saturating_add(1);
        let made = new.record(self.function.id, number, self.function.created_at);
        live.versions.push(VersionRecord { pool: new.spare, ..made.as_version() });
        live.function.version_max = number;
        live.function.policy.clone_from(&new.policy);
        live.function.invocation.clone_from(&new.invocation);
        if new.promote {
            live.make_current(number, new.spare)?;
        }
        live.tag_new(new, number)?;
        live.prune();
        Ok(live)
    }

    /// The function after `change`.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] says why not.
    pub fn change(&self, change: &Change) -> Result<Self, ChangeError> {
        let mut live = self.clone();
        match change {
            Change::Promote { version, spare } => live.make_current(*version, *spare)?,
            Change::SetTag { tag, version } => live.set_tag(tag, *version)?,
            Change::RemoveTag { tag } => {
                let found = live.tags.iter().position(|t| t.tag == *tag);
                let found = found.ok_or_else(|| ChangeError::NoTag { tag: tag.clone() })?;
                if live.tags[found].weight > 0 {
                    return Err(ChangeError::InSplit { tag: tag.clone() });
                }
                live.tags.remove(found);
            }
            Change::Split(split) => live.split(split)?,
        }
        live.prune();
        Ok(live)
    }

    /// The version of this number, if it can be reached.
    #[must_use]
    pub fn version(&self, version: u32) -> Option<&VersionRecord> {
        self.versions.iter().find(|found| found.version == version)
    }

    /// The tag of this name.
    #[must_use]
    pub fn tag(&self, tag: &str) -> Option<&TagRecord> {
        self.tags.iter().find(|found| found.tag == tag)
    }

    fn make_current(&mut self, version: u32, spare: FunctionId) -> Result<(), ChangeError> {
        let (id, before) = (self.function.id, self.function.version);
        if version == before {
            return Ok(());
        }
        let made = self.versions.iter_mut().find(|found| found.version == version);
        let made = made.ok_or(ChangeError::NoVersion { version })?;
        made.pool = id;
        self.function.take(made);
        for old in self.versions.iter_mut().filter(|found| found.version == before) {
            old.pool = spare;
        }
        Ok(())
    }

    fn tag_new(&mut self, new: &NewVersion, version: u32) -> Result<(), ChangeError> {
        new.tag.as_ref().map_or(Ok(()), |tag| self.set_tag(tag, version))
    }

    fn set_tag(&mut self, tag: &str, version: u32) -> Result<(), ChangeError> {
        if self.version(version).is_none() {
            return Err(ChangeError::NoVersion { version });
        }
        match self.tags.binary_search_by(|found| found.tag.as_str().cmp(tag)) {
            Ok(found) => self.tags[found].version = version,
            Err(_) if self.tags.len() >= TAGS_MAX => return Err(ChangeError::TooManyTags),
            Err(place) => {
                let made = TagRecord { tag: tag.to_owned(), version, weight: 0 };
                self.tags.insert(place, made);
            }
        }
        Ok(())
    }

    fn split(&mut self, split: &[TagWeight]) -> Result<(), ChangeError> {
        if let Some(lost) = split.iter().find(|share| self.tag(&share.tag).is_none()) {
            return Err(ChangeError::NoTag { tag: lost.tag.clone() });
        }
        for tag in &mut self.tags {
            let share = split.iter().find(|share| share.tag == tag.tag);
            tag.weight = share.map_or(0, |share| share.weight);
        }
        Ok(())
    }

    fn prune(&mut self) {
        let Self { function, versions, tags } = self;
        versions.retain(|found| {
            found.version == function.version || tags.iter().any(|tag| tag.version == found.version)
        });
    }
}
