//! What a served module lets a session do, whatever its client asks for.

use super::filter::FilterRules;
use super::options::SyncOptions;

/// What the side that serves the module does in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleRole {
    /// Lists and sends.
    Sender,
    /// Receives.
    Receiver,
    /// Compares what it has with what the other side lists.
    Verifier,
}

/// The owner's word on a module. It outranks the client's options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModulePolicy {
    /// Its contents may be listed, sent and compared.
    pub may_read: bool,
    /// Its contents may be changed.
    pub may_write: bool,
    /// `-L`, `-k` and `--copy-unsafe-links` may follow links that lead out of it.
    pub copy_links_outside: bool,
    /// Owners are carried over by number, whatever the client asks for.
    pub numeric_ids: bool,
    /// Set-user-ID and set-group-ID bits are dropped, whatever the client asks for.
    pub no_setid: bool,
    /// What these exclude does not exist for a session: neither listed nor overwritten nor deleted, and no option of
    /// the client brings it back. Anchored patterns begin at the module's root. No per-directory merge files.
    pub filters: FilterRules,
}

/// What a module refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModuleRefusal {
    /// To be read.
    #[error("the module is write-only: nothing in it may be listed, read or compared")]
    WriteOnly,
    /// To be written.
    #[error("the module is read-only")]
    ReadOnly,
    /// To have its files removed.
    #[error("the module is read-only: --remove-source-files would change it")]
    RemovesSources,
}

impl ModulePolicy {
    /// The options that a session in the role `role` runs with, made from those that the client asked for.
    pub fn effective(&self, mut options: SyncOptions, role: ModuleRole) -> Result<SyncOptions, ModuleRefusal> {
        let reads = matches!(role, ModuleRole::Sender | ModuleRole::Verifier);
        if reads && !self.may_read {
            return Err(ModuleRefusal::WriteOnly);
        }
        // A dry run too: what it tells is what is there.
        if role == ModuleRole::Receiver && !self.may_write {
            return Err(ModuleRefusal::ReadOnly);
        }
        if role == ModuleRole::Sender && options.remove_source_files && !self.may_write {
            return Err(ModuleRefusal::RemovesSources);
        }
        options.numeric_ids |= self.numeric_ids;
        options.preserve.no_setid |= self.no_setid;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_allows_depends_on_the_role() {
        use ModuleRole::{Receiver, Sender, Verifier};
        let options = SyncOptions { dry_run: true, ..SyncOptions::default() };
        let removing = SyncOptions { remove_source_files: true, ..SyncOptions::default() };
        for (may_read, may_write, role, options, refusal) in [
            (true, false, Sender, &options, None),
            (true, false, Verifier, &options, None),
            (true, false, Receiver, &options, Some(ModuleRefusal::ReadOnly)),
            (true, false, Sender, &removing, Some(ModuleRefusal::RemovesSources)),
            (true, true, Sender, &removing, None),
            (true, true, Receiver, &removing, None),
            (false, true, Receiver, &options, None),
            (false, true, Sender, &options, Some(ModuleRefusal::WriteOnly)),
            (false, true, Verifier, &options, Some(ModuleRefusal::WriteOnly)),
            (false, false, Sender, &options, Some(ModuleRefusal::WriteOnly)),
            (false, false, Receiver, &options, Some(ModuleRefusal::ReadOnly)),
        ] {
            let policy = ModulePolicy { may_read, may_write, ..ModulePolicy::default() };
            assert_eq!(policy.effective(options.clone(), role).err(), refusal, "{policy:?} {role:?}");
        }
    }

    #[test]
    fn a_module_only_tightens() {
        let strict = ModulePolicy { may_read: true, numeric_ids: true, no_setid: true, ..ModulePolicy::default() };
        let options = strict.effective(SyncOptions::default(), ModuleRole::Sender).unwrap();
        assert!(options.numeric_ids && options.preserve.no_setid);
        let lax = ModulePolicy { may_read: true, ..ModulePolicy::default() };
        assert_eq!(lax.effective(options.clone(), ModuleRole::Sender).unwrap(), options);
    }
}
