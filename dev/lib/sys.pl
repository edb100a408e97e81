#!/usr/bin/env perl
# What bash can't do, or not the same way on Linux and macOS: sessions, users, file locks, ports.
use strict;
use warnings;
use Errno qw(EADDRINUSE EADDRNOTAVAIL EACCES);
use Fcntl qw(:flock);
use IO::Socket::INET;
use POSIX ();

my %commands = (
    daemon   => \&daemon,
    session  => \&session,
    attached => \&attached,
    as       => \&as,
    lock     => \&lock,
    ports    => \&ports,
    bindable => \&bindable,
    http     => \&http,
    follow   => \&follow,
);
my $name = shift @ARGV // '';
my $command = $commands{$name} or die "sys.pl: no command '$name'\n";
$command->();

# A background job of a script inherits SIGINT and SIGQUIT as ignored: give the program the usual ones.
sub run {
    $SIG{$_} = 'DEFAULT' for qw(INT QUIT TERM HUP PIPE);
    no warnings 'exec';
    exec { $_[0] } @_ or do {
        print STDERR "cannot run $_[0]: $!\n";
        POSIX::_exit($!{ENOENT} ? 127 : 126);
    };
}

# Inherited files of the caller (locks, the watchdog's pipe) must not live on in a server.
sub close_inherited { POSIX::close($_) for 3 .. 255 }

sub become {
    my ($user) = @_;
    my (undef, undef, $uid, $gid) = getpwnam($user) or die "no user $user on this machine\n";
    return if $> == $uid;
    $) = "$gid $gid";
    POSIX::setgid($gid);
    POSIX::setuid($uid);
    die "cannot become $user: $!\n" unless $< == $uid && $> == $uid && $) =~ /^$gid\b/;
}

# daemon LOG PIDFILE USER CMD...: in a session of its own, output to LOG; returns once CMD's process
# is there and its id on record. USER "" is the caller.
sub daemon {
    my ($log, $pidfile, $user, @cmd) = @ARGV;
    pipe(my $reader, my $writer) or die "pipe: $!\n";
    my $pid = fork() // die "fork: $!\n";
    if ($pid) {
        close $writer;
        my $trouble = do { local $/; <$reader> };
        if ($trouble) { waitpid $pid, 0; die $trouble }
        return;
    }
    close $reader;
    # $writer is the one file to keep until exec, which closes it: close the rest by number.
    my $keep = fileno $writer;
    POSIX::close($_) for grep { $_ != $keep } 3 .. 255;
    eval {
        POSIX::setsid();
        open STDIN,  '<',  '/dev/null' or die "/dev/null: $!\n";
        open STDOUT, '>>', $log        or die "$log: $!\n";
        open STDERR, '>&', \*STDOUT    or die "$log: $!\n";
        open my $out, '>', "$pidfile.new" or die "$pidfile: $!\n";
        print $out "$$\n" or die "$pidfile: $!\n";
        close $out or die "$pidfile: $!\n";
        rename "$pidfile.new", $pidfile or die "$pidfile: $!\n";
        become($user) if $user;
        1;
    } or do { syswrite $writer, $@; POSIX::_exit(1) };
    run(@cmd);
}

# session CMD...: becomes CMD in a session of its own, out of reach of the terminal's Ctrl-C.
sub session {
    POSIX::setsid();
    close_inherited();
    run(@ARGV);
}

# attached CMD...: becomes CMD. Off a terminal it leads a process group, so that all it started can
# be ended with it; on one it stays in the shell's group, where Ctrl-C and Ctrl-Z reach it.
sub attached {
    setpgrp(0, 0) unless -t STDIN;
    run(@ARGV);
}

# as USER CMD...
sub as {
    become(shift @ARGV);
    run(@ARGV);
}

# lock FD PATH SECONDS: takes the lock on the caller's open file FD. It ends with the caller, however
# the caller ends. Exit 3: PATH was deleted meanwhile (by a wipe), open it anew.
sub lock {
    my ($fd, $path, $seconds) = @ARGV;
    open my $file, '>&=', $fd or die "lock: $!\n";
    $SIG{ALRM} = sub { exit 1 };
    alarm $seconds;
    flock $file, LOCK_EX or die "lock: $!\n";
    my @held  = stat $file;
    my @named = stat $path;
    exit 3 unless @named && $held[0] == $named[0] && $held[1] == $named[1];
}

sub listener {
    my ($host, $port) = @_;
    return IO::Socket::INET->new(
        LocalAddr => $host, LocalPort => $port, Proto => 'tcp', Listen => 1, ReuseAddr => 1);
}

# bindable HOST PORT: exit 1 if the port is taken there, 2 if it can't be had for another reason.
sub bindable {
    my ($host, $port) = @ARGV;
    return if listener($host, $port);
    exit 1 if $!{EADDRINUSE};
    print STDERR "$!\n";
    exit 2;
}

# ports COUNT [TAKEN...]: free ports below the range that systems give to outgoing connections, so
# that none of those takes the port of a server which is down for a moment.
sub ports {
    my ($count, @taken) = @ARGV;
    my %used = map { $_ => 1 } @taken;
    my @held;
    for (1 .. 2000) {
        last if @held == $count;
        my $port = 15_000 + int rand 17_000;
        next if $used{$port}++;
        my $socket = listener('127.0.0.1', $port) or next;
        push @held, $socket;
    }
    die "no free port on 127.0.0.1\n" if @held < $count;
    print join(' ', map { $_->sockport } @held), "\n";
}

# http HOST:PORT PATH: prints the status of a GET, with the key in $LEADS_KEY if there is one.
sub http {
    my ($address, $path) = @ARGV;
    local $SIG{ALRM} = sub { exit 1 };
    alarm 5;
    my $socket = IO::Socket::INET->new(PeerAddr => $address, Proto => 'tcp', Timeout => 2) or exit 1;
    my $auth = $ENV{LEADS_KEY} ? "Authorization: Bearer $ENV{LEADS_KEY}\r\n" : '';
    print $socket "GET $path HTTP/1.1\r\nHost: $address\r\n${auth}Connection: close\r\n\r\n";
    my $line = <$socket> // '';
    $line =~ m{^HTTP/1\.\d (\d{3})} or exit 1;
    print "$1\n";
}

# follow NAME=FILE...: prints what is appended to the files, each line after its name.
sub follow {
    $| = 1;
    my @files = map {
        my ($label, $path) = split /=/, $_, 2;
        open my $file, '<', $path or die "$path: $!\n";
        seek $file, 0, 2;
        { label => $label, file => $file, rest => '' };
    } @ARGV;
    while (1) {
        for my $log (@files) {
            seek $log->{file}, 0, 1;
            while (defined(my $line = readline $log->{file})) {
                $log->{rest} .= $line;
                next unless $log->{rest} =~ /\n\z/;
                print "$log->{label} | $log->{rest}";
                $log->{rest} = '';
            }
        }
        select undef, undef, undef, 0.2;
        exit 0 if getppid() == 1;
    }
}
