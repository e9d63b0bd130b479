#!/usr/bin/env bash
# A real SLURM with two virtual nodes on this machine, for tests and for trying launch lines.
#
#   scripts/slurm_dev_cluster.sh start [DIRECTORY]     then: export SLURM_CONF=DIRECTORY/slurm.conf
#   scripts/slurm_dev_cluster.sh stop [DIRECTORY]
#
# Everything it writes lies in DIRECTORY (default: /tmp/slurm-dev-$USER); nothing in /etc is read or written.
# Needs the programs only: apt-get install slurmctld slurmd slurm-client munge. PORT (default 16817) is the first of
# three ports in a row. Partitions: low (default), and high, whose jobs preempt those in low.
set -euo pipefail

action=${1:-}
user=$(id -un)
directory=$(realpath -m "${2:-/tmp/slurm-dev-$user}")
export SLURM_CONF=$directory/slurm.conf
PATH=$PATH:/usr/sbin

start() {
    for program in munged slurmctld slurmd sinfo; do
        command -v "$program" >/dev/null || { echo "there is no $program on this machine" >&2; exit 1; }
    done
    if [[ -e $directory && ! -e $directory/log/slurmctld.log && -n $(ls -A "$directory") ]]; then
        echo "$directory holds other things than a cluster of this script" >&2
        exit 1
    fi
    # Without the file scontrol would look for a controller in the DNS, for a minute.
    [[ -f $SLURM_CONF ]] && scontrol ping 2>/dev/null | grep -q UP && { echo "it runs already: export SLURM_CONF=$SLURM_CONF" >&2; exit 1; }
    mkdir -p "$directory"/{state,spool.n1,spool.n2,log,run}
    chmod 755 "$directory" "$directory/run"
    [[ -f $directory/munge.key ]] || head -c 128 /dev/urandom >"$directory/munge.key"
    chmod 400 "$directory/munge.key"
    write_configuration
    # --force: munged wants a root-owned path from / on, which a directory below /tmp is not.
    munged --force --num-threads=2 --key-file="$directory/munge.key" --socket="$directory/run/munge.sock" \
        --pid-file="$directory/run/munged.pid" --log-file="$directory/log/munged.log" \
        --seed-file="$directory/run/munge.seed" 2>>"$directory/log/munged.log"
    slurmctld -f "$SLURM_CONF" -c
    slurmd -f "$SLURM_CONF" -N n1
    slurmd -f "$SLURM_CONF" -N n2
    for _ in $(seq 100); do
        [[ $(sinfo -h -p low -o %t 2>/dev/null) == idle ]] && { echo "export SLURM_CONF=$SLURM_CONF"; return; }
        sleep 0.1
    done
    echo "the nodes did not come up within ten seconds; logs: $directory/log" >&2
    exit 1
}

stop() {
    [[ -f $SLURM_CONF ]] || { echo "no cluster in $directory" >&2; exit 1; }
    scancel --user="$user" 2>/dev/null || true
    for _ in $(seq 200); do # what starts jobs must outlive them, or their processes stay behind
        [[ -z $(squeue -h 2>/dev/null) ]] && break
        sleep 0.1
    done
    for daemon in slurmd.n1 slurmd.n2 slurmctld munged; do
        [[ -f $directory/run/$daemon.pid ]] && kill "$(cat "$directory/run/$daemon.pid")" 2>/dev/null || true
    done
    for _ in $(seq 100); do # slurmctld saves its state first; every daemon removes its pid file when it ends
        compgen -G "$directory/run/*.pid" >/dev/null || break
        sleep 0.1
    done
    rm -rf "$directory"/{run,state,spool.n1,spool.n2,munge.key,slurm.conf}
}

write_configuration() {
    local host port=${PORT:-16817}
    host=$(hostname -s)
    # Two slurmd on one host, no cgroups and no accounting: this works in containers and virtual machines, too.
    cat >"$SLURM_CONF" <<CONF
ClusterName=dev
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$directory/run/munge.sock
CredType=cred/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool.%n
SlurmctldPidFile=$directory/run/slurmctld.pid
SlurmdPidFile=$directory/run/slurmd.%n.pid
SlurmctldLogFile=$directory/log/slurmctld.log
SlurmdLogFile=$directory/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SlurmctldTimeout=30
SlurmdTimeout=60
InactiveLimit=0
MinJobAge=120
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=n1,n2 Default=NO MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
CONF
}

case $action in
    start) start ;;
    stop) stop ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
