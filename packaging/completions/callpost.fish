# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_callpost_global_optspecs
    string join \n config= v/verbose h/help V/version
end

function __fish_callpost_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_callpost_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_callpost_using_subcommand
    set -l cmd (__fish_callpost_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c callpost -n "__fish_callpost_needs_command" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_needs_command" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_needs_command" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_needs_command" -s V -l version -d 'Print version'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "run" -d 'Run the agent'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "check" -d 'Look at the configuration, Asterisk, sinks, journal and clock; each line says what to do'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "demo" -d 'No PBX, nothing to configure: recorded calls through the real agent, before your eyes'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "receive" -d 'A receiver for trying things: NiMbox create and delete, webhooks; prints, and can fail on request'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "number" -d 'Show what the number rules make of a number, rule by rule'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "reload" -d 'Let the running agent read its configuration again; says what changed, or why it may not'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "status" -d 'How the running agent stands: connection, journal, routes'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "calls" -d 'Calls, live or past: who with whom, how it went, and what to give to trace'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "trace" -d 'One call in full: its channels, what happened between them, what was sent and what came back'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "tail" -d 'Updates as they happen'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "backfill" -d 'Send the calls of a CDR store to NiMbox: each once, however often it is run'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "delete" -d 'Delete a range of days from a NiMbox; both dates are left out'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "setup" -d 'Find the PBX on this host and propose its account and the configuration; writes after consent'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "import-script" -d 'Turn a site\'s edited copy of the Perl script into a configuration, for review'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "dead" -d 'Deliveries that were given up: look at them, send them again, drop them'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "replay" -d 'Send again what the journal still holds of a time, with the ids it had'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "journal" -d 'Look at the journal itself: read-only unless told otherwise'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "completions" -d 'Print what makes a shell complete these commands'
complete -c callpost -n "__fish_callpost_needs_command" -f -a "capture" -d 'Save a live AMI stream, secrets removed, for a bug report; Ctrl-C ends it'
complete -c callpost -n "__fish_callpost_using_subcommand run" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand run" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand run" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand check" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand check" -l config-only -d 'Only read the configuration; connect to nothing'
complete -c callpost -n "__fish_callpost_using_subcommand check" -l send-test -d 'Post a test event to each webhook'
complete -c callpost -n "__fish_callpost_using_subcommand check" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand check" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand check" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand demo" -l speed -d 'So many times as fast as recorded' -r
complete -c callpost -n "__fish_callpost_using_subcommand demo" -l directory -d 'Keep the journal there; run again, and what was not delivered goes out first' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand demo" -l to -d 'Deliver there, as to `callpost receive`, in place of the demo\'s own receiver' -r
complete -c callpost -n "__fish_callpost_using_subcommand demo" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand demo" -l keep -d 'Go on until Ctrl-C'
complete -c callpost -n "__fish_callpost_using_subcommand demo" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand demo" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand demo" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l listen -d 'Where to listen; port 0 picks a free one' -r
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l fail -d 'Answer with this HTTP status' -r
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l fail-rate -d 'Fail this part of the requests only, 0 to 1; with 503 unless --fail says otherwise' -r
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l delay -d 'Wait before each answer, as 50ms' -r
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l nimbox-error -d 'As NiMbox, refuse each create for this field with this text' -r
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand receive" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand receive" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand receive" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand number" -l route -d 'With the rules of this NiMbox sink' -r
complete -c callpost -n "__fish_callpost_using_subcommand number" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand number" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand number" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand number" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand reload" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand reload" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand reload" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand reload" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand status" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand status" -s w -l watch -d 'Show it again every two seconds, until Ctrl-C'
complete -c callpost -n "__fish_callpost_using_subcommand status" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand status" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand status" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l number -d 'Only those from or to this number, exactly as shown' -r
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l since -d 'Only those that began in the last so long, as 30m or 2h' -r
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l from -d 'Only those that began then or later: a day, a time, or both, as "2026-11-21 14:30"' -r
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l to -d 'Only those that began before that time, or on that day or before' -r
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l limit -d 'At most so many legs' -r
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l live -d 'Only those that go on now'
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l missed -d 'Only those that were missed'
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l ascii -d 'Draw with ASCII alone, as it is done where the locale is not UTF-8'
complete -c callpost -n "__fish_callpost_using_subcommand calls" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand calls" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand calls" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand trace" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand trace" -l ascii -d 'Draw with ASCII alone, as it is done where the locale is not UTF-8'
complete -c callpost -n "__fish_callpost_using_subcommand trace" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand trace" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand trace" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand tail" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand tail" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand tail" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand tail" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l from -d 'Calls that began at this time or later, as 2026-11-01, "2026-11-01 08:00" or 2h' -r
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l to -d 'Calls that began before this time; of a day, before it is over; default: now' -r
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l since -d 'Calls that began in this time up to now, as 200h' -r
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l source -d 'Another store than [cdr] source; a password in it shows in the list of processes' -r
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l route -d 'For this sink alone: one NiMbox, or a webhook, which history goes to only when it is named' -r
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l rate -d 'Creates a second at most, beside what the receiver itself allows' -r
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l full -d 'The last 360 days, as the Perl script\'s -full'
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l dry-run -d 'Print what would be sent, and send nothing'
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand backfill" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand delete" -l from -d 'The day before the first that is deleted, as 2012-08-23' -r
complete -c callpost -n "__fish_callpost_using_subcommand delete" -l to -d 'The day after the last that is deleted' -r
complete -c callpost -n "__fish_callpost_using_subcommand delete" -l route -d 'Which NiMbox sink; required where there are several' -r
complete -c callpost -n "__fish_callpost_using_subcommand delete" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand delete" -l yes -d 'Do not ask'
complete -c callpost -n "__fish_callpost_using_subcommand delete" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand delete" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand delete" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l name -d 'A name for this PBX: a-z, 0-9, -; default: this host\'s' -r
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l trunk -d 'An outside line, by the beginning of its channels\' names, as PJSIP/trunk; again for each' -r
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l nimbox-url -d 'Make a create there for each call' -r
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l nimbox-token-file -d 'A file with NiMbox\'s token; it is copied to callpost\'s secrets' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l destination -d 'What NiMbox gets as the destination of inbound calls, by which it finds the contact' -r -f -a "did\t'The number that was called'
dst\t'What Asterisk\'s record says'
caller\t'Who called'"
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l webhook-url -d 'Post the states of calls there' -r
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l cdr-store -d 'The CDR store: auto takes the one that Asterisk writes, none reads none, or a URL as in [cdr] source; a password in it shows in the list of processes' -r
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l root -d 'Another root directory than this host\'s, as for an image' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l enable-cdr -d 'Turn on Asterisk\'s Cdr events, from which NiMbox gets exact durations'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -s y -l yes -d 'Do not ask: write what flags and files say'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l dry-run -d 'Show what would be written, and write nothing'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l no-check -d 'Do not end with `callpost check`'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c callpost -n "__fish_callpost_using_subcommand import-script" -s o -l output -d 'Write the configuration to a new file (mode 0600) in place of stdout' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand import-script" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand import-script" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand import-script" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -f -a "list" -d 'Those there are, oldest first'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -f -a "show" -d 'All that is known of one: the last answer, attempts, times, the body'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -f -a "retry" -d 'Send them again, with the ids they had; without ids, all of a route or all there are'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and not __fish_seen_subcommand_from list show retry drop" -f -a "drop" -d 'Give them up for good; without ids, all of a route or all there are'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from list" -l route -d 'Only those of this route' -r
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from list" -l limit -d 'At most so many' -r
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from list" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from list" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from show" -l route -d 'Only that of this route: several may owe the same' -r
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from show" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from show" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from retry" -l route -d 'Only those of this route' -r
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from retry" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from retry" -s y -l yes -d 'Do not ask'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from retry" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from retry" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from retry" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -l route -d 'Only those of this route' -r
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -s y -l yes -d 'Do not ask'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -l pending -d 'What waits still for a route that is not configured any more, instead of dead letters'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand dead; and __fish_seen_subcommand_from drop" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l from -d 'From this time on: 2026-11-20, "2026-11-20 14:00", 2026-11-20T14:00:00-04:00, or 2h for two hours ago' -r
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l to -d 'To this time; a day ends when it is over. Default: now' -r
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l route -d 'Only to this route' -r
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l id -d 'Only the delivery with this id' -r
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l dry-run -d 'Only say how many there are'
complete -c callpost -n "__fish_callpost_using_subcommand replay" -s y -l yes -d 'Do not ask'
complete -c callpost -n "__fish_callpost_using_subcommand replay" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand replay" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand replay" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -f -a "status" -d 'How it stands: its stores, what waits on each route, what was given up'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -f -a "verify" -d 'Read every record: checksums, links, counters; exit code 3 where something is wrong'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -f -a "export" -d 'Every record that tells of calls, as JSON lines: messages, updates, CDRs, deliveries, dead letters'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and not __fish_seen_subcommand_from status verify export salvage" -f -a "salvage" -d 'What can be taken from stores that were put aside; writes only with --yes'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from status" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from status" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from status" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from verify" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from verify" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from verify" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from export" -l from -d 'From this time on, as 2026-01-31, "2026-01-31 08:00", 08:00 or 2h' -r
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from export" -l to -d 'Until this time; a day given so is part of it' -r
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from export" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from export" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from salvage" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from salvage" -l yes -d 'Do it; the agent must not be running'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from salvage" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from salvage" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand journal; and __fish_seen_subcommand_from salvage" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand completions" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand completions" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand completions" -s h -l help -d 'Print help'
complete -c callpost -n "__fish_callpost_using_subcommand capture" -l config -d 'The configuration; conf.d/*.toml beside it is read after it' -r -F
complete -c callpost -n "__fish_callpost_using_subcommand capture" -l json -d 'Print JSON, one object a line'
complete -c callpost -n "__fish_callpost_using_subcommand capture" -s v -l verbose -d 'Say more in the log: -v debug, -vv trace'
complete -c callpost -n "__fish_callpost_using_subcommand capture" -s h -l help -d 'Print help'
