//! What a served module lets a session do, whatever its client asks for.

use super::filter::FilterRules;
use super::options::{ItemReport, QuickCheck, SyncOptions};

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
    /// Set-user-ID and set-group-ID bits are dropped from what is written, whatever the client asks for.
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
    /// To be written in a way that tells what is there.
    #[error("the module is write-only, and {0} would tell what is in it: leave that out")]
    Tells(&'static str),
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
        if role == ModuleRole::Receiver && !self.may_read {
            if let Some(telling) = telling(&options) {
                return Err(ModuleRefusal::Tells(telling));
            }
            // A delta begins with signatures of what is here.
            options.whole_file = Some(true);
        }
        options.numeric_ids |= self.numeric_ids;
        // What a client reads is its own affair: bits that were lost on the way would be a silent damage.
        options.preserve.no_setid |= self.no_setid && role == ModuleRole::Receiver;
        Ok(options)
    }
}

/// The first option by which whoever writes could learn names or contents of what others wrote.
fn telling(options: &SyncOptions) -> Option<&'static str> {
    let SyncOptions { dry_run, list_only, quick_check, alt_dests, partial, partial_dir, .. } = options;
    let asked = [
        (*dry_run, "--dry-run (-n)"),
        (*list_only, "--list-only"),
        (*quick_check == QuickCheck::Checksum, "--checksum (-c)"),
        (alt_dests.is_some(), "--compare-dest, --copy-dest or --link-dest"),
        (options.append_verify, "--append-verify"),
        // Parts are continued by their signatures, and the directory could be any.
        (*partial || partial_dir.is_some(), "--partial or --partial-dir (-P)"),
        (options.whole_file == Some(false), "--no-whole-file"),
        (
            options.item_report != ItemReport::None || options.details,
            "a list of changes (-v, -i, --info, --out-format, --log-file or --json)",
        ),
    ];
    asked.into_iter().find_map(|(asked, name)| asked.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::options::{AltDestKind, AltDests};

    #[test]
    fn what_a_module_allows_depends_on_the_role() {
        use ModuleRole::{Receiver, Sender, Verifier};
        let options = SyncOptions { dry_run: true, ..SyncOptions::default() };
        let plain = SyncOptions::default();
        let removing = SyncOptions { remove_source_files: true, ..SyncOptions::default() };
        for (may_read, may_write, role, options, refusal) in [
            (true, false, Sender, &options, None),
            (true, false, Verifier, &options, None),
            (true, false, Receiver, &options, Some(ModuleRefusal::ReadOnly)),
            (true, false, Sender, &removing, Some(ModuleRefusal::RemovesSources)),
            (true, true, Sender, &removing, None),
            (true, true, Receiver, &removing, None),
            (false, true, Receiver, &plain, None),
            (false, true, Receiver, &options, Some(ModuleRefusal::Tells("--dry-run (-n)"))),
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
        let sent = strict.effective(SyncOptions::default(), ModuleRole::Sender).unwrap();
        assert!(sent.numeric_ids && !sent.preserve.no_setid);
        let strict = ModulePolicy { may_write: true, ..strict };
        let options = strict.effective(SyncOptions::default(), ModuleRole::Receiver).unwrap();
        assert!(options.numeric_ids && options.preserve.no_setid);
        let lax = ModulePolicy { may_read: true, may_write: true, ..ModulePolicy::default() };
        assert_eq!(lax.effective(options.clone(), ModuleRole::Receiver).unwrap(), options);
    }

    /// Whoever may only write gets whole files, and is refused every option that tells what is there.
    #[test]
    fn a_write_only_module_tells_nothing() {
        let policy = ModulePolicy { may_write: true, ..ModulePolicy::default() };
        let plain = policy.effective(SyncOptions::default(), ModuleRole::Receiver).unwrap();
        assert_eq!(plain, SyncOptions { whole_file: Some(true), ..SyncOptions::default() });
        let alt_dests = Some(AltDests { kind: AltDestKind::Link, dirs: vec![b"x".to_vec()] });
        let plain = SyncOptions::default;
        for telling in [
            SyncOptions { dry_run: true, ..plain() },
            SyncOptions { list_only: true, ..plain() },
            SyncOptions { quick_check: QuickCheck::Checksum, ..plain() },
            SyncOptions { alt_dests, ..plain() },
            SyncOptions { append_verify: true, ..plain() },
            SyncOptions { partial: true, ..plain() },
            SyncOptions { partial_dir: Some(b".".to_vec()), ..plain() },
            SyncOptions { whole_file: Some(false), ..plain() },
            SyncOptions { item_report: ItemReport::Changed, ..plain() },
            SyncOptions { details: true, ..plain() },
        ] {
            let refused = policy.effective(telling.clone(), ModuleRole::Receiver);
            assert!(matches!(refused, Err(ModuleRefusal::Tells(_))), "{telling:?}");
            let open = ModulePolicy { may_read: true, ..policy.clone() };
            assert_eq!(open.effective(telling.clone(), ModuleRole::Receiver), Ok(telling));
        }
    }
}
