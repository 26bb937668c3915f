//! Whose a file becomes: by name where both sides have the name, else by id; root is never mapped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::fs;
use crate::limits;
use crate::model::{Acls, Metadata};
use crate::plan::idmap::{IdMap, Target};
use crate::plan::options::SyncOptions;
use crate::wire::FlowError;

type Names = RwLock<HashMap<u32, Vec<u8>>>;

/// Maps the source's users and groups to this machine's.
#[derive(Debug)]
pub(in crate::sync) struct Owners {
    /// Names that the far side told; `None` on one machine, where ids mean the same.
    far: Option<(Names, Names)>,
    users: RwLock<HashMap<u32, u32>>,
    groups: RwLock<HashMap<u32, u32>>,
    numeric: bool,
    maps: crate::plan::idmap::IdMaps,
    /// The far side told more names than it may.
    excess: AtomicBool,
    owner: bool,
    group: bool,
    am_root: bool,
    my_groups: &'static [u32],
}

impl Owners {
    /// For a session; `far` when listings come from another machine.
    pub(in crate::sync) fn new(options: &SyncOptions, far: bool) -> Owners {
        Owners {
            far: far.then(|| (Names::default(), Names::default())),
            users: RwLock::default(),
            groups: RwLock::default(),
            numeric: options.numeric_ids,
            maps: options.id_maps.clone(),
            excess: AtomicBool::new(false),
            owner: options.preserve.owner,
            group: options.preserve.group,
            am_root: fs::am_root(),
            my_groups: fs::groups(),
        }
    }

    /// The far side's names of ids.
    pub(in crate::sync) fn learn(&self, users: Vec<(u32, Vec<u8>)>, groups: Vec<(u32, Vec<u8>)>) {
        if let Some((far_users, far_groups)) = &self.far {
            // The root is looked at before its owner's name is known: what was answered without it is forgotten.
            for (cache, named) in [(&self.users, &users), (&self.groups, &groups)] {
                let mut cache = cache.write().unwrap_or_else(PoisonError::into_inner);
                for (id, _) in named {
                    cache.remove(id);
                }
            }
            for (names, told) in [(far_users, users), (far_groups, groups)] {
                let mut names = names.write().unwrap_or_else(PoisonError::into_inner);
                if names.len() + told.len() > limits::OWNER_NAMES_MAX {
                    self.excess.store(true, Ordering::Relaxed);
                    return;
                }
                names.extend(told);
            }
        }
    }

    /// An error where the far side told more names than it may: without them owners would come out wrong.
    pub(in crate::sync) fn check(&self) -> Result<(), FlowError> {
        match self.excess.load(Ordering::Relaxed) {
            true => Err(FlowError::Excess { what: "names of owners" }),
            false => Ok(()),
        }
    }

    /// The owner and group that an entry gets; `None` leaves them as they are: not asked for, or not allowed.
    pub(super) fn wanted(&self, uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
        let owner = (self.owner && self.am_root).then(|| self.user(uid));
        let group = self.group.then(|| self.group(gid)).filter(|group| self.am_root || self.my_groups.contains(group));
        (owner, group)
    }

    /// The owner and group that count as right where they are only compared: whoever runs the comparison.
    pub(in crate::sync) fn expected(&self, metadata: &Metadata) -> (Option<u32>, Option<u32>) {
        (self.owner.then(|| self.user(metadata.uid)), self.group.then(|| self.group(metadata.gid)))
    }

    /// As [`Owners::wanted`], from an entry's metadata.
    pub(super) fn wanted_for(&self, metadata: &Metadata) -> (Option<u32>, Option<u32>) {
        self.wanted(metadata.uid, metadata.gid)
    }

    /// Access control lists with their ids mapped.
    pub(in crate::sync) fn map_acls(&self, acls: &Acls) -> Acls {
        let map = |acl: &crate::model::Acl| acl.map_ids(|id| self.user(id), |id| self.group(id));
        Acls { access: acls.access.as_ref().map(map), default: acls.default.as_ref().map(map) }
    }

    fn user(&self, id: u32) -> u32 {
        let far = self.far.as_ref().map(|(users, _)| users);
        self.mapped(&self.users, &self.maps.users, far, id, fs::user_name, fs::user_id)
    }

    fn group(&self, id: u32) -> u32 {
        let far = self.far.as_ref().map(|(_, groups)| groups);
        self.mapped(&self.groups, &self.maps.groups, far, id, fs::group_name, fs::group_id)
    }

    fn mapped(
        &self,
        cache: &RwLock<HashMap<u32, u32>>,
        map: &IdMap,
        far: Option<&Names>,
        id: u32,
        name_here: impl Fn(u32) -> Option<Vec<u8>>,
        id_here: impl Fn(&[u8]) -> Option<u32>,
    ) -> u32 {
        if map.is_empty() && (self.numeric || id == 0 || far.is_none()) {
            return id;
        }
        if let Some(&mapped) = cache.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return mapped;
        }
        let name = match far {
            Some(names) => names.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned(),
            None => name_here(id),
        };
        let mapped = match map.map(id, name.as_deref()) {
            Some(Target::Id(mapped)) => *mapped,
            Some(Target::Name(name)) => id_here(name).unwrap_or(id),
            None if self.numeric || id == 0 || far.is_none() => id,
            None => name.as_deref().and_then(id_here).unwrap_or(id),
        };
        cache.write().unwrap_or_else(PoisonError::into_inner).insert(id, mapped);
        mapped
    }
}
