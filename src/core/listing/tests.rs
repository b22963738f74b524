use std::time::Instant;

use jiff::Timestamp;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn row(namespace: &str, name: &str, phase: &str, created: i64) -> Row {
    Row {
        namespace: namespace.into(),
        name: name.into(),
        phase: phase.into(),
        reason: "AsExpected".into(),
        pool: "default".into(),
        queue: "".into(),
        task: "run".into(),
        labels: vec![("team".into(), "a".into())],
        topic: "Tides and moons".into(),
        priority: 5,
        attempts: 0,
        percent: None,
        worker: None,
        error: None,
        error_message: None,
        suspended: false,
        cancelling: false,
        created: at(created),
        queued: None,
        started: None,
        finished: None,
    }
}

fn table(rows: impl IntoIterator<Item = Row>) -> Table {
    let mut table = Table::holding(100_000);
    rows.into_iter().for_each(|row| table.apply(row));
    table
}

fn query(text: &str) -> Query {
    Query::read(text.split('&').filter_map(|pair| pair.split_once(':'))).unwrap()
}

fn names(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|row| &*row.name).collect()
}

fn shown(table: &Table, text: &str) -> Vec<String> {
    names(&table.page(&query(text), &Scope::All)).into_iter().map(str::to_owned).collect()
}

#[test]
fn any_value_of_a_kind_fits_and_all_kinds_have_to() {
    let mut failed = row("a", "one", "Failed", 1);
    failed.error = Some("ValueError".into());
    failed.pool = "gpu".into();
    let mut running = row("a", "two", "Running", 2);
    running.labels = vec![("team".into(), "b".into()), ("urgent".into(), "".into())];
    running.topic = "Größe der Gezeiten".into();
    let table = table([failed, running, row("b", "three", "Running", 3)]);
    assert_eq!(shown(&table, ""), ["three", "two", "one"], "the newest first");
    assert_eq!(shown(&table, "phase:Failed&phase:Running&namespace:a"), ["two", "one"]);
    assert_eq!(shown(&table, "pool:gpu&phase:Running"), Vec::<String>::new());
    assert_eq!(shown(&table, "label:team=a&sort:name"), ["one", "three"]);
    assert_eq!(shown(&table, "label:urgent"), ["two"]);
    assert_eq!(shown(&table, "label:team=a&label:urgent"), Vec::<String>::new());
    assert_eq!(shown(&table, "text:VALUEerr"), ["one"], "in the error, whatever the case");
    assert_eq!(shown(&table, "text:GRÖSSE"), Vec::<String>::new());
    assert_eq!(shown(&table, "text:größe"), ["two"]);
    assert_eq!(shown(&table, "text:  &name:two"), ["two"], "an empty text is none");
}

#[test]
fn pages_follow_each_other_without_a_gap_though_jobs_come_and_go_between_them() {
    let mut table = table((0..10).map(|n| row("a", &format!("job-{n}"), "Running", n / 3)));
    for sort in ["created", "-created", "name", "-name", "phase", "priority"] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = table.page(&query(&format!("sort:{sort}&limit:3&continue:{after}")), &Scope::All);
            assert_eq!((page.before, page.total), (seen.len(), 10), "{sort}");
            seen.extend(names(&page).into_iter().map(str::to_owned));
            let Some(next) = page.next else { break };
            after = next.text();
        }
        let mut once = seen.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!((seen.len(), once.len()), (10, 10), "{sort}: {seen:?}");
    }
    let first = table.page(&query("sort:created&limit:4"), &Scope::All);
    let next = first.next.unwrap().text();
    table.remove("a", "job-3");
    table.apply(row("a", "earlier", "Running", -1));
    assert_eq!(shown(&table, &format!("sort:created&limit:2&continue:{next}")), ["job-4", "job-5"]);
}

#[test]
fn a_facet_counts_the_jobs_that_its_values_would_add() {
    let mut gpu = row("a", "gpu", "Running", 1);
    gpu.pool = "gpu".into();
    let table = table([gpu, row("a", "one", "Failed", 2), row("b", "two", "Failed", 3)]);
    let page = table.page(&query("phase:Failed"), &Scope::All);
    let counted = |facet| -> Vec<(String, usize)> {
        let (_, values) = page.facets.iter().find(|(known, _)| *known == facet).unwrap();
        values.iter().map(|(value, count)| (value.to_string(), *count)).collect()
    };
    assert_eq!(counted(Facet::Phase), [("Failed".to_owned(), 2), ("Running".to_owned(), 1)]);
    assert_eq!(counted(Facet::Pool), [("default".to_owned(), 2)]);
    assert_eq!(counted(Facet::Namespace), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
}

#[test]
fn nothing_of_a_namespace_out_of_scope_is_shown_counted_or_told() {
    let mut table = table([row("a", "mine", "Running", 1), row("b", "theirs", "Failed", 2)]);
    let scope = Scope::Only(["a".into()].into());
    let page = table.page(&Query::default(), &scope);
    assert_eq!((names(&page), page.total), (vec!["mine"], 1));
    assert!(page.facets.iter().all(|(_, values)| values.iter().all(|(value, _)| !["b", "Failed"].contains(&&**value))));
    assert_eq!((table.get("b", "theirs", &scope), table.meant(&Filter::default(), &scope).len()), (None, 1));
    let seen = table.changes().count();
    table.remove("b", "theirs");
    assert!(!table.changes().since(seen, &Filter::default(), &scope));
    assert!(table.changes().since(seen, &Filter::default(), &Scope::All));
}

#[test]
fn a_change_is_told_to_those_that_see_the_job_or_saw_it_before() {
    let mut table = table([row("a", "one", "Running", 1)]);
    let seen = table.changes().count();
    table.apply(row("a", "one", "Running", 1));
    let changed = |table: &Table, text| table.changes().since(seen, &query(text).filter, &Scope::All);
    assert!(!changed(&table, ""), "nothing that a list shows has changed");
    table.apply(row("a", "one", "Failed", 1));
    assert!(changed(&table, "phase:Running") && changed(&table, "phase:Failed") && !changed(&table, "phase:Queued"));
    for n in 0..5_000 {
        table.apply(row("a", "busy", "Running", n));
    }
    assert!(changed(&table, "name:absent"), "what was forgotten may have been of that job");
}

#[test]
fn what_a_new_list_does_not_have_is_gone_and_what_finds_no_room_is_counted() {
    let mut table = Table::holding(2);
    let list = table.begin();
    (0..3).for_each(|n| table.apply(row("a", &format!("job-{n}"), "Running", n)));
    table.complete(list, None);
    assert_eq!((table.len(), table.omitted()), (2, 1));
    let list = table.begin();
    table.apply(row("b", "job-0", "Running", 1));
    assert_eq!(table.len(), 2, "nothing is forgotten before the list is complete");
    table.apply(row("a", "job-1", "Running", 1));
    table.complete(list, None);
    assert_eq!((table.len(), table.omitted(), table.namespaces(&Filter::default())), (1, 1, vec!["a".into()]));
    let list = table.begin();
    table.complete(list, Some("b"));
    assert_eq!(table.len(), 1, "another namespace was listed");
}

#[test]
fn what_a_query_cannot_mean_is_refused_with_its_word() {
    let refused = |text: &str| Query::read(text.split('&').filter_map(|pair| pair.split_once(':'))).unwrap_err();
    assert!(refused("limit:0").starts_with("limit is a number from 1 to 500"));
    assert!(refused("limit:5000").starts_with("limit"));
    assert!(refused("sort:topic").contains('-') && refused("continue:x").starts_with("continue"));
    assert!(refused("nmaespace:a").starts_with("there is no nmaespace"));
    assert!(refused(&format!("text:{}", "x".repeat(600))).starts_with("text has more than 512"));
    let many: Vec<String> = (0..40).map(|n| format!("pool:p{n}")).collect();
    assert!(refused(&many.join("&")).starts_with("pool is given more than 32"));
    for odd in ["", "/", "n/a", "nx/a/b", "x1/a/b"] {
        assert_eq!(Cursor::read(odd), None, "{odd}");
    }
}

#[test]
fn an_action_is_for_the_jobs_in_which_it_would_change_anything() {
    let mut held = row("a", "held", "Pending", 1);
    held.suspended = true;
    let fits = |action: Action| -> Vec<&'static str> {
        let phases = ["Queued", "Running", "Succeeded", "Failed", "Cancelled"];
        phases.into_iter().filter(|phase| action.fits(&row("a", "b", phase, 1))).collect()
    };
    assert_eq!(fits(Action::Cancel), ["Queued", "Running"]);
    assert_eq!(fits(Action::Retry), ["Failed", "Cancelled"]);
    assert_eq!(fits(Action::Priority(5)), ["Queued", "Running"]);
    assert!(Action::Resume.fits(&held) && !Action::Suspend.fits(&held) && fits(Action::Resume).is_empty());
    assert_eq!(Action::read("priority", Some(10)), Ok(Action::Priority(10)));
    for (word, priority, field) in
        [("priority", Some(11), "/priority"), ("priority", None, "/priority"), ("delete", None, "/action")]
    {
        assert_eq!(Action::read(word, priority).unwrap_err().0, field);
    }
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!((cut("größe", 3), cut("ab", 3), cut("", 0)), ("grö", "ab", ""));
}

/// A hundredth of a second in a release build; this guards against an answer that takes time by the square.
#[test]
fn of_ten_thousand_jobs_a_page_is_found_within_a_fifth_of_a_second() {
    let phases = PHASES.len();
    let table = table((0..10_000_i64).map(|n| {
        let phase = PHASES[usize::try_from(n).unwrap() % phases];
        row(&format!("team-{}", n % 20), &format!("job-{n}"), phase, n)
    }));
    let began = Instant::now();
    let page = table.page(&query("text:moons&sort:-created&phase:Failed"), &Scope::All);
    assert_eq!(page.total, 10_000 / phases);
    assert!(began.elapsed().as_millis() < 200, "{:?}", began.elapsed());
}
