"""HDFS and YARN under Kerberos: Hadoop's own KDC and keys' server, and what a client needs."""

from __future__ import annotations

import ctypes
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError

from tests.clusters import hadoop, parts, sparks
from tests.clusters.daemons import (
    JAVA_OPTIONS,
    Daemons,
    answer,
    free_ports,
    own_environment,
    started,
)

REALM = "EXAMPLE.COM"
GSSAPI = "libgssapi_krb5.so.2"
KDC = "org.apache.hadoop.minikdc.MiniKdc"
SERVERS = tuple(f"{name}/localhost" for name in ("nn", "dn", "rm", "nm", "HTTP"))
OWNER = "keeper"  # the user who may read and write
STRANGER = "stranger"  # has a ticket, and no right
KEY_SERVER = "org.apache.hadoop.crypto.key.kms.server.KMSWebServer"
ZONE_KEY = "records"
ZONES = ("/patients", "/encrypted")  # encrypted at rest
ZONES_MAKER = Path(__file__).with_name("Zones.java")


@dataclass(frozen=True)
class Kerberos:
    """A running HDFS, and YARN on it, that answer only who has a ticket."""

    daemons: Daemons
    address: str  # hdfs://localhost:PORT
    conf_dir: Path
    krb5: Path
    keytab: Path

    def client(self, user: str | None = OWNER) -> dict[str, str]:
        """The environment of a client with the keytab of ``user``, or (None) with no ticket.

        MIT's library fetches the ticket by itself, from the keytab into the cache; no ``kinit`` is
        needed, only ``libgssapi_krb5.so.2``. It reads the environment that a process began with:
        give this to a process of its own.
        """
        env = {
            "PYTHONPATH": sparks.TREE,
            "HADOOP_CONF_DIR": str(self.conf_dir),
            "KRB5_CONFIG": str(self.krb5),
            "KRB5CCNAME": f"FILE:{self.daemons.folder / f'tickets-{user}'}",
        }
        if user:
            env["KRB5_CLIENT_KTNAME"] = str(self.daemons.folder / f"{user}.keytab")
        return own_environment(**env)


def kerberos() -> AbstractContextManager[Kerberos]:
    """Start a KDC, and an HDFS and a YARN that trust it. Raises Missing, NotReady."""
    return started("kerberos", _start)


def _start(daemons: Daemons) -> Kerberos:
    folder = daemons.folder
    try:
        ctypes.CDLL(GSSAPI)
    except OSError:
        raise parts.Missing(
            f"{GSSAPI} is not installed (apt-get install libgssapi-krb5-2)"
        ) from None
    krb5, keytab = _start_kdc(daemons)
    *ports, keys_port = free_ports(hadoop.PORTS + 1)
    conf_dir = folder / "conf"
    more = {
        "fs.defaultFS": f"hdfs://localhost:{ports[0]}",
        "hadoop.security.key.provider.path": f"kms://http@localhost:{keys_port}/kms",
        "hadoop.security.authentication": "kerberos",
        "hadoop.security.authorization": "true",
        "hadoop.rpc.protection": "privacy",
        "dfs.permissions.enabled": "true",
        # These users are Kerberos's alone: this machine's groups do not know them.
        "hadoop.user.group.static.mapping.overrides": ";".join(
            [f"{OWNER}=readers", *(f"{who}=" for who in (STRANGER, "nn", "dn", "rm", "nm"))]
        ),
        "dfs.permissions.superusergroup": "readers",
        "dfs.block.access.token.enable": "true",
        "dfs.data.transfer.protection": "privacy",
        "dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding",  # else 3DES, slow in Java
        "ignore.secure.ports.for.testing": "true",
        "dfs.namenode.kerberos.principal": f"nn/localhost@{REALM}",
        "dfs.datanode.kerberos.principal": f"dn/localhost@{REALM}",
        "dfs.namenode.keytab.file": str(keytab),
        "dfs.datanode.keytab.file": str(keytab),
        "yarn.resourcemanager.principal": f"rm/localhost@{REALM}",
        "yarn.nodemanager.principal": f"nm/localhost@{REALM}",
        "yarn.resourcemanager.keytab": str(keytab),
        "yarn.nodemanager.keytab": str(keytab),
        "dfs.web.authentication.kerberos.principal": f"HTTP/localhost@{REALM}",
        "dfs.web.authentication.kerberos.keytab": str(keytab),
    }
    hadoop.write_configuration(folder, conf_dir, ports, more=more)
    java = hadoop.java(folder, f"-Djava.security.krb5.conf={krb5}")
    _start_keys(daemons, keys_port, krb5, keytab)
    hadoop.start_hdfs(daemons, java)
    hadoop.start_yarn(daemons, java)
    hadoop.await_hdfs(daemons, ports[1])
    hadoop.await_yarn(daemons, f"http://127.0.0.1:{ports[2]}")
    made = Kerberos(daemons, f"hdfs://localhost:{ports[0]}", conf_dir, krb5, keytab)
    _make_zones(made, java)
    return made


def _start_keys(daemons: Daemons, port: int, krb5: Path, keytab: Path) -> None:
    """Start the server that keeps the keys of encryption zones."""
    conf_dir = daemons.folder / "keys"
    conf_dir.mkdir()
    given = "hadoop.kms.authentication"
    settings = {
        "hadoop.kms.http.port": str(port),
        "hadoop.kms.key.provider.uri": f"jceks://file@{conf_dir}/keys.jceks",
        f"{given}.type": "kerberos",
        f"{given}.kerberos.keytab": str(keytab),
        f"{given}.kerberos.principal": f"HTTP/localhost@{REALM}",
        f"{given}.signer.secret.provider": "random",
    }
    hadoop.write_settings(conf_dir / "kms-site.xml", settings)
    kinds = ("MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ")
    rights = {f"default.key.acl.{kind}": "*" for kind in kinds}
    hadoop.write_settings(conf_dir / "kms-acls.xml", rights)
    secure = {"hadoop.security.authentication": "kerberos"}
    hadoop.write_settings(conf_dir / "core-site.xml", secure)
    places = [f"-Dkms.{kind}.dir={conf_dir}" for kind in ("config", "log", "temp")]
    places.append("-Dlog4j.configuration=of-jar.properties")  # it asks for one; there is none
    places.append("--add-opens=java.base/java.lang=ALL-UNNAMED")  # it is older than Java 17
    java = [parts.java(), "-Xmx128m", *JAVA_OPTIONS, f"-Djava.security.krb5.conf={krb5}", *places]
    daemons.start("keys", [*java, "-cp", f"{conf_dir}:{parts.KMS.class_path()}", KEY_SERVER])

    def asks_for_a_ticket() -> bool:
        try:
            return bool(answer(f"http://localhost:{port}/kms/v1/keys/names"))
        except HTTPError as refused:
            return refused.code == HTTPStatus.UNAUTHORIZED

    daemons.await_ready(asks_for_a_ticket, what="the server of keys")


def _make_zones(made: Kerberos, java: list[str]) -> None:
    """Make a key, and the folders in which each file is encrypted with one of its own."""
    *options, class_path = java
    compiled = parts.compiled(ZONES_MAKER, sorted(parts.DAEMONS.folder().glob("*.jar")))
    keytab = made.daemons.folder / f"{OWNER}.keytab"
    command = [*options, f"{compiled}:{class_path}", ZONES_MAKER.stem, OWNER, keytab, ZONE_KEY]
    done = subprocess.run([*map(str, command), *ZONES], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"no encryption zone could be made: {done.stderr[-2000:]}")


def _start_kdc(daemons: Daemons) -> tuple[Path, Path]:
    """Start the KDC; answers with its krb5.conf and the servers' keytab."""
    folder = daemons.folder
    keytab, settings = folder / "all.keytab", folder / "kdc.properties"
    settings.write_text("kdc.bind.address=127.0.0.1\norg.name=EXAMPLE\norg.domain=COM\n")
    (folder / "kdc").mkdir()
    java = [parts.java(), "-Xmx128m", *JAVA_OPTIONS, "-cp", parts.KDC.class_path(), KDC]
    who = [*SERVERS, OWNER, STRANGER]
    daemons.start("kdc", [*java, folder / "kdc", settings, keytab, *who])
    daemons.await_ready(lambda: keytab.is_file() and "<CTRL-C>" in daemons.tail("kdc"), what="KDC")
    for user in (OWNER, STRANGER):
        (folder / f"{user}.keytab").write_bytes(keys_of(user, keytab.read_bytes()))
    return next((folder / "kdc").rglob("krb5.conf")), keytab


def keys_of(user: str, keytab: bytes) -> bytes:
    """A keytab with this principal's keys alone (MIT's file format, version 2)."""
    kept, at = keytab[:2], 2
    while at + 4 <= len(keytab):
        size = abs(int.from_bytes(keytab[at : at + 4], "big", signed=True))
        entry = keytab[at : at + 4 + size]
        if _principal(entry[4:]) == user:
            kept += entry
        at += 4 + size
    return kept


def _principal(entry: bytes) -> str:
    """``name`` or ``name/host`` of a keytab's entry: a count, the realm, then the components."""
    parts_left, at, texts = int.from_bytes(entry[:2], "big") + 1, 2, []
    for _ in range(parts_left):
        size = int.from_bytes(entry[at : at + 2], "big")
        texts.append(entry[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return "/".join(texts[1:])
