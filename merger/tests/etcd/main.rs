//! The store and the leadership on a real etcd. Each test starts its own members on free ports of the loopback, and ends them.
//!
//! Where there is no etcd these tests are counted as ignored, and a line says why: `ETCD_BIN`, or one on the path, or what
//! `make etcd` has fetched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

mod access;
mod copying;
mod leading;
mod members;
mod process;
mod storing;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: its name, and what it does.
type Test = (&'static str, fn());

/// Names the functions of a module.
macro_rules! tests {
    ($($module:ident: $($name:ident),+ $(,)?;)+) => {
        [$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn()),)+)+]
    };
}

const TESTS: &[Test] = &tests! {
    storing:
        the_store_does_what_a_store_does,
        etcd_takes_what_the_store_sends_and_no_more,
        a_large_commit_is_whole,
        what_got_no_answer_is_settled,
        commits_go_on_when_a_member_hangs,
        history_is_forgotten,
    ;
    leading:
        one_leads_until_it_steps_down,
        who_hears_nothing_from_etcd_stops_before_the_key_goes,
        a_deposed_leader_changes_nothing,
        a_key_that_an_operator_deletes_ends_the_term,
    ;
    access:
        an_endpoint_that_is_gone_or_hangs_is_left_for_another,
        users_and_passwords,
        certificates,
    ;
    copying:
        there_and_back_again,
    ;
    process:
        a_second_merger_follows_and_takes_over,
        a_merger_whose_lease_is_over_calls_no_node_ready_and_begins_anew,
        what_is_wrong_is_said_at_the_start_in_one_line,
    ;
};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let there = members::etcd().is_some();
    if !there {
        println!(
            "LEFT OUT: there is no etcd here (`make etcd` fetches one), so nothing was tested on a real one"
        );
    }
    let trial = |(name, test): &Test| {
        let test = *test;
        Trial::test(*name, move || {
            test();
            Ok::<(), Failed>(())
        })
        .with_ignored_flag(!there)
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit_code()
}
