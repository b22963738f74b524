//! Whose turn it is.

use super::*;

/// Three keys of the weights 1, 2 and 4 that share one limit of so many in flight.
fn flood(most: u32) -> World {
    let mut weighted = tenants(1_000);
    weighted.max_in_flight = None;
    weighted.weights = BTreeMap::from([("b".into(), 2), ("c".into(), 4)]);
    World::of([weighted, all(most)])
}

fn count(names: &[String], tenant: &str) -> usize {
    names.iter().filter(|name| name.starts_with(tenant)).count()
}

#[test]
fn under_a_flood_keys_get_shares_by_their_weights_also_across_leaders() {
    for leads_for in [usize::MAX, 250] {
        let mut world = flood(5);
        for index in 0..700 {
            for tenant in ["a", "b", "c"] {
                world.create(&format!("{tenant}-{index:03}"), tenant);
            }
        }
        let mut given = Vec::new();
        while given.len() < 700 {
            world.now += 250;
            let first = world.released()[given.len() % 5].to_owned();
            world.ends(&first);
            given.extend(world.give());
            if given.len() % leads_for == leads_for - 1 {
                world.another_leader();
                let released: Vec<String> = world.released().iter().map(ToString::to_string).collect();
                for name in &released {
                    world.ask(name);
                }
            }
        }
        for (tenant, share) in [("a", 100.0), ("b", 200.0), ("c", 400.0)] {
            let had = f64::from(u32::try_from(count(&given, tenant)).unwrap());
            assert!((had / share - 1.0).abs() < 0.05, "{tenant} had {had} of {share}, a leader led for {leads_for}");
        }
    }
}

#[test]
fn a_burst_of_one_key_does_not_keep_another_waiting_and_an_idle_one_has_no_claim_to_the_past() {
    let mut world = flood(1);
    for index in 0..50 {
        world.create(&format!("a-{index:02}"), "a");
    }
    let next = |world: &mut World| {
        let first = world.released()[0].to_owned();
        world.now += 1_000;
        world.ends(&first);
        world.give().remove(0)
    };
    for _ in 0..20 {
        assert!(next(&mut world).starts_with('a'));
    }
    for index in 0..50 {
        world.create(&format!("z-{index:02}"), "z");
    }
    let given: Vec<String> = (0..20).map(|_| next(&mut world)).collect();
    assert!(given[0].starts_with('z'), "{given:?}");
    assert_eq!((count(&given, "a"), count(&given, "z")), (10, 10), "{given:?}");
}

#[test]
fn the_more_urgent_job_is_next_and_among_equals_the_older_one() {
    let mut world = flood(1);
    world.create("first", "a");
    world.create_as("idle", "a", 0);
    world.now = 1_000;
    world.create_as("usual", "a", 5);
    world.now = 2_000;
    world.create_as("urgent", "b", 10);
    world.now = 3_000;
    world.create_as("later", "a", 5);
    for (ends, expected) in [("first", "urgent"), ("urgent", "usual"), ("usual", "later"), ("later", "idle")] {
        world.ends(ends);
        assert_eq!(world.give(), [expected]);
    }
}

#[test]
fn a_job_that_has_waited_for_long_is_as_urgent_as_a_new_one_of_a_higher_priority() {
    let mut world = flood(1);
    world.create("first", "a");
    world.create_as("old", "a", 4);
    world.now = 59 * 60_000;
    world.create_as("new", "a", 5);
    world.now = 61 * 60_000;
    world.create_as("newer", "a", 5);
    for (ends, expected) in [("first", "new"), ("new", "old"), ("old", "newer")] {
        world.ends(ends);
        assert_eq!(world.give(), [expected]);
    }
}

#[test]
fn a_key_that_has_no_room_of_its_own_holds_up_no_other_one() {
    let mut world = World::of([tenants(1), all(2)]);
    for name in ["a-1", "a-2", "a-3"] {
        world.create(name, "a");
    }
    world.create("b-1", "b");
    assert_eq!(world.released(), ["a-1", "b-1"]);
    let wait = world.wait_of("a-3");
    assert_eq!((&*wait.limit, wait.position), ("tenants", 2));
}

#[test]
fn the_place_and_the_time_of_the_release_are_expected_from_the_pace_of_those_before() {
    let mut world = World::of([all(1)]);
    for index in 0..30 {
        world.create(&format!("job-{index:02}"), "a");
    }
    assert_eq!((world.wait_of("job-29").position, world.wait_of("job-29").expected_at), (29, None));
    for _ in 0..9 {
        world.now += 10_000;
        let first = world.released()[0].to_owned();
        world.ends(&first);
        world.give();
    }
    let wait = world.wait_of("job-29");
    assert_eq!((wait.position, wait.expected_at), (20, Some(at(90_000 + 200_000))));
}
