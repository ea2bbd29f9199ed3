"""The processes that torchrun starts, on one host or several: what they agree on, and how they end together.

They meet in the key-value store that torchrun keeps for all hosts. There they compare what has to be alike, wait for
one another without a limit (a host may decode for hours), and leave word when one fails, which ends the others within
seconds. Gradients, losses and a checkpoint that only one host has go through PyTorch's process group.
docs/machines.md says what that means for a user.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from reprlib import repr as shorter
from typing import Any, NoReturn
from uuid import uuid4

import torch
from torch import distributed
from tqdm import tqdm

from DualScaleNet.common.script import Stopped, UserError, one_line, out_of_memory

ARRIVAL = 600  # seconds: torchrun starts the processes at the same time
SILENCE = 300  # seconds without a sign of life after which a process counts as lost
LOST = "the connection to another process broke, which may have been killed: see the other hosts' output"


@contextmanager
def joined_processes() -> Iterator["Processes"]:
    """All processes of this start; when one fails all end, each host with that one's line."""
    processes = Processes()
    try:
        yield processes
    except BaseException as error:
        if isinstance(error, Stopped) or (isinstance(error, SystemExit) and not error.code):
            processes.leave()
        else:
            processes.fail(error)
        raise
    processes.leave()


class Processes:
    """This process among those of its start. Without torchrun it is alone, and waits for nobody.

    Attributes:
        rank, count, hosts: this process's number, how many there are, and on how many hosts.
        first_of_host: whether it is the one that acts for its host.
        name: as a user knows it.
        launch: when torchrun was started, in seconds; the same for all hosts, and again after a restart by torchrun.
    """

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.hosts = int(os.environ.get("GROUP_WORLD_SIZE", 1))
        self.launch = time.time()
        self.first_of_host = int(os.environ.get("LOCAL_RANK", 0)) == 0
        self._host = os.environ.get("GROUP_RANK", socket.gethostname())
        self.name = f"{socket.gethostname()} (process {self.rank})"
        self._gathered = 0
        self._store: distributed.Store | None = None
        self._over = threading.Event()
        if "WORLD_SIZE" in os.environ:
            store = self._connect()
            self.launch = float(store.compare_set("launch", "", str(self.launch)))
            self._start = self._meet(store)
            self._store = distributed.PrefixStore(self._start, store)
            threading.Thread(target=self._watch, args=[self._store], daemon=True).start()

    def _connect(self) -> distributed.TCPStore:
        """A connection of its own to the store that a torchrun agent, or else the first process, keeps."""
        serves = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and not self._store
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            return distributed.TCPStore(address, port, is_master=serves, wait_for_workers=False)
        except RuntimeError:
            raise UserError(f"cannot reach torchrun's store at {address}:{port}: start torchrun again") from None

    def _meet(self, store: distributed.TCPStore) -> str:
        """A name that the processes of this start share: the store still holds what those before a restart wrote.

        Each leaves a new token, the first process answers to it with the name, until all have taken it.
        """
        token, others = uuid4().hex, range(1, self.count)
        deadline = time.monotonic() + ARRIVAL

        def pause() -> None:
            if time.monotonic() > deadline:
                raise UserError(f"not all of {self.count} processes came within {ARRIVAL // 60} minutes")
            time.sleep(0.05)

        if self.rank == 0:
            while not all(store.check([f"{token}/taken/{rank}"]) for rank in others):
                for rank in others:
                    if store.check([f"token/{rank}"]):
                        store.set(f"answer/{store.get(f'token/{rank}').decode()}", token)
                pause()
            return token
        store.set(f"token/{self.rank}", token)
        while not store.check([f"answer/{token}"]):
            pause()
        name = store.get(f"answer/{token}").decode()
        store.set(f"{name}/taken/{self.rank}", "")
        return name

    def connect_devices(self, device: torch.device) -> None:
        """Opens the process group: gloo for what the hosts agree on, as the devices may be steps behind."""
        if self._store is None:
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = distributed.PrefixStore(f"{self._start}/group", self._connect())
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.count)

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, of JSON's types, by rank. Waits for the slowest, however long."""
        if self._store is None:
            return [value]
        self._gathered += 1
        keys = [f"{self._gathered}/{rank}" for rank in range(self.count)]
        self._store.set(keys[self.rank], json.dumps(value))
        while not self._store.check(keys):
            time.sleep(0.05)
        return [json.loads(each) for each in self._store.multi_get(keys)]

    def require_alike(self, facts: Callable[[], dict[str, Any]]) -> None:
        """Compares what has to be the same everywhere, by name; one process alone does not ask for it.

        Raises:
            UserError: names a host that differs from the first process's, and in what; the same everywhere.
        """
        if self.count == 1:
            return
        (first, expected), *others = self.gather([self.name, facts()])
        for name, found in others:
            what = [
                f"{key} ({shorter(found.get(key))}, not {shorter(value)})"
                for key, value in expected.items()
                if found.get(key) != value
            ]
            if what:
                raise UserError(
                    f"{name} differs from {first} in {', '.join(what)}: "
                    "give every host the same code, options and photographs"
                )

    def hand_out(self, value: Any, source: int) -> Any:
        """What the process `source` holds, in all of them."""
        holder = [value]
        if self.count > 1:
            distributed.broadcast_object_list(holder, source, device=torch.device("cpu"))
        return holder[0]

    def largest(self, value: int) -> int:
        """The largest of all processes' values, without waiting for their devices."""
        if self.count == 1:
            return value
        values = torch.tensor(int(value))  # one type for all, also where some say False
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

    def average(self, values: torch.Tensor) -> None:
        """Replaces values by their mean over the processes, in place."""
        if self.count > 1:
            distributed.all_reduce(values)
            values /= self.count

    def leave(self) -> None:
        """Ends the good way: together, as a process that is gone counts as lost, and its host may keep the store."""
        if self._store is None:
            return
        with suppress(RuntimeError):  # whoever keeps the store has seen all others come, and left
            self.gather(None)
        self._over.set()
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def fail(self, error: BaseException) -> None:
        """Leaves word for the others. Ends the process if another one failed before, which `error` is then due to.

        Raises:
            UserError: the error is that another process has gone.
        """
        if self._store is None or self.count == 1:
            return
        self._over.set()
        gone = isinstance(error, RuntimeError) and (isinstance(error, distributed.DistError) or "gloo" in str(error))
        failure = {"host": self._host, "line": f"{self.name}: {LOST if gone else describe(error)}"}
        with suppress(RuntimeError):  # the store has gone already
            first = json.loads(self._store.compare_set("failure", "", json.dumps(failure)))
            if first != failure:
                self._end(self._store, first)
            deadline = time.monotonic() + 10  # it may go with this host
            while time.monotonic() < deadline and self._store.add("seen", 0) < self.count - 1:
                time.sleep(0.1)
        if gone:
            raise UserError(LOST) from None

    def _watch(self, store: distributed.Store) -> None:
        """Ends this process once another one has failed or is gone; whatever the main thread is waiting for."""
        neighbour = f"alive/{(self.rank + 1) % self.count}"
        signs, silent = 0, 0
        while not self._over.wait(1):
            try:
                store.add(f"alive/{self.rank}", 1)
                before, signs = signs, store.add(neighbour, 0)
                silent = silent + 1 if signs == before else 0
                failure = None
                if silent > SILENCE:
                    failure = {"host": None, "line": f"process {neighbour.split('/')[1]} gives no sign of life"}
                    store.compare_set("failure", "", json.dumps(failure))
                if store.check(["failure"]):
                    failure = json.loads(store.get("failure"))
            except RuntimeError:
                failure = {"host": None, "line": LOST}
            if failure and not self._over.is_set():
                self._end(store, failure)

    def _end(self, store: distributed.Store, failure: dict[str, str | None]) -> NoReturn:
        """At once: the main thread may be waiting for a process that is no more."""
        with suppress(RuntimeError):
            store.add("seen", 1)
        if self.first_of_host and failure["host"] != self._host:
            tqdm.write(f"{Path(sys.argv[0]).name}: error: {one_line(failure['line'])}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)


def describe(error: BaseException) -> str:
    """What the other hosts are told of it."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, Exception) and out_of_memory(error):
        return "out of memory"
    if isinstance(error, SystemExit):
        return f"ended with exit code {error.code}, as its own output says"
    return f"{type(error).__name__}: {error}".rstrip(": ")
