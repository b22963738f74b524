//! What a follower of a job hears: its state is a level, and an event is what differs from the state that was told last.

/// What is known of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The UID of the object: another one under the same name is another job.
    pub uid: String,
    /// The version of the object, of which only equality means something.
    pub version: String,
    /// The phase.
    pub phase: String,
    /// Why it is in it.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// How far it is: percent, if known, and a sentence.
    pub progress: Option<(Option<i64>, String)>,
    /// Whether the phase is final.
    pub is_over: bool,
}

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The phase, or the reason of it.
    Phase,
    /// The progress.
    Progress,
    /// The end of the job; nothing follows.
    End,
}

impl News {
    /// Its name in the stream.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Progress => "progress",
            Self::End => "end",
        }
    }
}

/// What is new in `now`, in the order in which it is told.
pub fn news(last: Option<&Seen>, now: &Seen) -> Vec<News> {
    if now.is_over {
        return vec![News::End];
    }
    let last = last.filter(|last| last.uid == now.uid);
    let is_other_phase = last.is_none_or(|last| (&last.phase, &last.reason) != (&now.phase, &now.reason));
    let is_other_progress = now.progress.is_some() && last.is_none_or(|last| last.progress != now.progress);
    let news = [(is_other_phase, News::Phase), (is_other_progress, News::Progress)];
    news.into_iter().filter(|(is_new, _)| *is_new).map(|(_, news)| news).collect()
}

/// The id of an event. A browser sends the last one that it had when it connects again.
pub fn event_id(news: News, now: &Seen) -> String {
    match news {
        News::Phase | News::Progress => now.version.clone(),
        News::End => format!("end-{}", now.uid),
    }
}

/// What a follower gets that has had an event with this id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// It has had the end: it is told not to come again.
    Over,
    /// It knows this state: only what changes from here on.
    Known,
    /// It may have missed something: it is told the state.
    Tell,
}

/// Compares the id of the last event with the state.
pub fn resume(last_event_id: Option<&str>, now: &Seen) -> Resume {
    match last_event_id {
        Some(id) if now.is_over && id == event_id(News::End, now) => Resume::Over,
        Some(id) if !now.is_over && id == now.version => Resume::Known,
        Some(_) | None => Resume::Tell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(version: &str, phase: &str, percent: Option<i64>) -> Seen {
        Seen {
            uid: "u".into(),
            version: version.into(),
            phase: phase.into(),
            progress: percent.map(|percent| (Some(percent), String::new())),
            is_over: phase == "Succeeded",
            ..Seen::default()
        }
    }

    #[test]
    fn only_what_differs_from_what_was_told_is_news_and_the_end_is_told_alone() {
        let queued = seen("1", "Queued", None);
        assert_eq!(news(None, &queued), [News::Phase]);
        assert_eq!(news(Some(&queued), &seen("2", "Queued", None)), []);
        let running = seen("3", "Running", Some(10));
        assert_eq!(news(Some(&queued), &running), [News::Phase, News::Progress]);
        assert_eq!(news(Some(&running), &seen("4", "Running", Some(20))), [News::Progress]);
        assert_eq!(news(Some(&running), &seen("5", "Succeeded", Some(20))), [News::End]);
        let other = Seen { uid: "v".into(), ..queued.clone() };
        assert_eq!(news(Some(&queued), &other), [News::Phase], "another job of the same name");
    }

    #[test]
    fn a_follower_that_comes_again_misses_no_state_hears_none_twice_and_is_sent_away_after_the_end() {
        let (queued, over) = (seen("1", "Queued", None), seen("9", "Succeeded", None));
        assert_eq!(resume(None, &queued), Resume::Tell);
        assert_eq!(resume(Some("1"), &queued), Resume::Known);
        assert_eq!(resume(Some("0"), &queued), Resume::Tell);
        assert_eq!(resume(Some("1"), &over), Resume::Tell);
        assert_eq!(resume(Some(&event_id(News::End, &over)), &over), Resume::Over);
        let later = Seen { version: "12".into(), ..over.clone() };
        assert_eq!(
            resume(Some(&event_id(News::End, &over)), &later),
            Resume::Over,
            "what changes after the end is no news"
        );
    }
}
