//! Stands between a row and the report: what was seen, and whether it is what the contract asks for.
//! Invariant: a row passes only with no fault; a row that could not be played says why and is never counted as passed.

use std::fmt;

/// What a row saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) passed: bool,
    pub(crate) text: String,
}

/// Faults found so far, and parts of a row that could not be played.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    faults: Vec<String>,
    left_out: Vec<String>,
    told: Vec<String>,
    figures: Vec<String>,
    /// How the bystander fared; told last.
    others: Option<String>,
}

/// Why a row cannot be played here. An error, so that it can be raised from anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Skip(pub(crate) String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

impl Findings {
    /// A fault unless this holds.
    pub(crate) fn want(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    /// A fault.
    pub(crate) fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// Something worth telling.
    pub(crate) fn tell(&mut self, text: impl Into<String>) {
        self.told.push(text.into());
    }

    /// What was measured; told whatever comes of it.
    pub(crate) fn measured(&mut self, figures: impl Into<String>) {
        self.figures.push(figures.into());
    }

    /// How the bystander fared.
    pub(crate) fn tell_of_others(&mut self, text: String) {
        self.others = Some(text);
    }

    /// A part of the row that this server or machine cannot play.
    pub(crate) fn leave_out(&mut self, part: impl Into<String>) {
        self.left_out.push(part.into());
    }

    /// Takes over what another has found.
    pub(crate) fn join(&mut self, other: Self) {
        self.faults.extend(other.faults);
        self.left_out.extend(other.left_out);
        self.told.extend(other.told);
        self.figures.extend(other.figures);
        self.others = other.others.or(self.others.take());
    }

    /// What was seen: the faults, or else what there is to tell.
    pub(crate) fn seen(mut self, strict: bool) -> Seen {
        if strict {
            self.faults.extend(self.left_out.iter().map(|part| format!("not played: {part}")));
        }
        let passed = self.faults.is_empty();
        let mut parts = if passed { self.told } else { some(self.faults) };
        parts.extend(self.figures);
        parts.extend(self.others);
        if !strict {
            parts.extend(self.left_out.iter().map(|part| format!("not played: {part}")));
        }
        Seen { passed, text: parts.join("; ") }
    }
}

/// The first of many faults, which often have one cause.
fn some(mut faults: Vec<String>) -> Vec<String> {
    const TOLD: usize = 4;
    let more = faults.len().saturating_sub(TOLD);
    if more > 0 {
        faults.truncate(TOLD);
        faults.push(format!("and {more} more"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fault_fails_and_is_told_instead_of_the_figures() {
        let mut findings = Findings::default();
        findings.tell("all is well");
        assert_eq!(findings.clone().seen(false), Seen { passed: true, text: "all is well".to_owned() });
        findings.want(false, || "one is lost".to_owned());
        findings.measured("3 ms");
        assert_eq!(findings.seen(false), Seen { passed: false, text: "one is lost; 3 ms".to_owned() });
    }

    #[test]
    fn a_part_left_out_fails_only_when_all_is_asked_for() {
        let mut findings = Findings::default();
        findings.leave_out("order");
        assert!(findings.clone().seen(false).passed);
        assert!(!findings.seen(true).passed);
    }
}
