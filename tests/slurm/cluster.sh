#!/usr/bin/env bash
# A real SLURM of one node on this machine, in a folder of its own, for tests and benchmarks; as root, without systemd.
#
#   tests/slurm/cluster.sh start FOLDER     prints SLURM_CONF=… once a job has run and its output was read
#   tests/slurm/cluster.sh stop FOLDER      ends its three daemons and the jobs that are left
#
# It needs slurmctld, slurmd and munged (Debian: slurm-wlm munge). Accounting, cgroups and limits on memory are off:
# a container has none. FOLDER's path must be short, since a socket lies in it.
set -euo pipefail
action=$1 folder=$(realpath -m "$2")
export SLURM_CONF=$folder/slurm.conf
PORT=${SLURM_TEST_PORT:-26817}

say() { echo "cluster.sh: $*" >&2; exit 1; }

configure() {
    # nproc would obey OMP_NUM_THREADS.
    local host=$1 cpus
    cpus=$(getconf _NPROCESSORS_ONLN)
    cat > "$SLURM_CONF" <<CONF
ClusterName=ci
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
AuthType=auth/munge
# A job that is queued again starts once its credential has expired.
AuthInfo=socket=$folder/munge/sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
ReturnToService=2
InactiveLimit=0
MinJobAge=600
KillWait=20
SlurmctldTimeout=30
SlurmdTimeout=60
Waittime=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$((cpus * 8000)) State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
}

start() {
    [ "$(id -u)" = 0 ] || say "must be root"
    for command in munged slurmctld slurmd srun; do
        command -v $command > /dev/null || say "no $command: apt-get install slurm-wlm munge"
    done
    local host
    host=$(hostname -s)
    mkdir -p "$folder"/{state,spool,log,munge}
    chmod 711 "$folder" "$folder/munge"
    configure "$host"
    (umask 077 && head -c 128 /dev/urandom > "$folder/munge/key")
    # The daemons keep no pipe of ours open, or whoever reads our output would wait for them.
    {
        munged --force --key-file="$folder/munge/key" --socket="$folder/munge/sock" --pid-file="$folder/munged.pid" \
            --log-file="$folder/log/munged.log" --seed-file="$folder/munge/seed"
        slurmctld -c
        slurmd -N "$host"
    } > "$folder/log/start.log" 2>&1 < /dev/null || say "$(tail -n 1 "$folder/log/start.log")"
    for _ in $(seq 300); do
        if [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ]; then break; fi
        sleep 0.1
    done
    # With plugins that do not work here srun prints nothing and returns 0, so a job's output is what counts.
    [ "$(timeout 60 srun --quiet --ntasks=1 --mem=100 echo a job ran 2>> "$folder/log/start.log")" = "a job ran" ] ||
        say "no job runs; see $folder/log"
    echo "SLURM_CONF=$SLURM_CONF"
}

stop() {
    if [ -f "$SLURM_CONF" ]; then timeout 10 scancel --quiet --user=root 2> /dev/null || true; fi
    for daemon in slurmd slurmctld munged; do
        local file=$folder/$daemon.pid
        [ -f "$file" ] || continue
        local process
        process=$(cat "$file")
        kill "$process" 2> /dev/null || true
        for _ in $(seq 100); do
            kill -0 "$process" 2> /dev/null || break
            sleep 0.1
        done
        rm -f "$file"
    done
}

case $action in
    start) start ;;
    stop) stop ;;
    *) say "start or stop" ;;
esac
