"""MariaDB and RabbitMQ, both with our own configuration only and on nothing but a socket or the management address."""

from __future__ import annotations

from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import ServiceContext
from moyai.localcloud.supervision import ServiceSpec

DATABASES = ("keystone", "glance", "placement", "neutron", "cinder", "nova", "nova_api", "nova_cell0", "octavia")


def files(context: ServiceContext) -> dict[str, str]:
    paths = context.paths
    mariadb = f"""[mariadbd]
user = root
datadir = {paths.state / "mysql"}
socket = {paths.mysql_socket}
pid-file = {paths.run / "mysql.pid"}
tmpdir = {paths.run}
skip-networking
skip-name-resolve
skip-log-bin
# what was answered survives a crash of the host: machines and volumes must never outlive the memory of them
innodb-flush-log-at-trx-commit = 1
innodb-buffer-pool-size = 128M
innodb-log-file-size = 48M
performance-schema = OFF
max-connections = 400
# a service that gets no processor for a while is no stranger who never logs in
connect-timeout = 60
character-set-server = utf8mb3
collation-server = utf8mb3_general_ci
"""
    # the first start makes the only user from this; nothing of the bus outlives the cloud's run
    rabbitmq = f"""listeners.tcp.1 = {context.config.address}:{PORTS["rabbitmq"]}
default_user = moyai
default_pass = {context.secrets.rabbitmq}
loopback_users = none
log.console = true
log.console.level = warning
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
"""
    return {"mariadb.cnf": mariadb, "rabbitmq.conf": rabbitmq, "rabbitmq-plugins": "[].\n"}


def services(context: ServiceContext) -> list[ServiceSpec]:
    paths = context.paths
    rabbit = paths.run / "rabbit"
    return [
        ServiceSpec(
            "rabbitmq",
            ("/usr/lib/rabbitmq/bin/rabbitmq-server",),
            env={
                "HOME": str(rabbit),
                "RABBITMQ_NODENAME": "moyai@localhost",
                "RABBITMQ_MNESIA_BASE": str(rabbit / "mnesia"),
                "RABBITMQ_LOG_BASE": str(rabbit / "log"),
                "RABBITMQ_CONFIG_FILE": context.conf("rabbitmq.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": context.conf("rabbitmq-plugins"),
                # busy-waiting schedulers are for big machines; Erlang's own ports stay on the loopback
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                    "+S 2:2 +sbwt none +sbwtdcpu none -kernel inet_dist_use_interface {127,0,0,1}"
                ),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
                "LANG": "C.UTF-8",
            },
            port=PORTS["rabbitmq"],
        ),
        ServiceSpec(
            "mariadb",
            ("/usr/sbin/mariadbd", f"--defaults-file={context.conf('mariadb.cnf')}"),
            socket=str(paths.mysql_socket),
        ),
    ]
