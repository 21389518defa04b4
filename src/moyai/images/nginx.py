"""nginx as users know it from the official image, made of Debian's package.

Listens on port 80 (IPv4 and IPv6), serves /usr/share/nginx/html, reads /etc/nginx/conf.d, logs to standard output and error,
runs /docker-entrypoint.d/*.sh first and fills /etc/nginx/templates/*.template from the environment.
"""

from __future__ import annotations

from moyai.images.oci import Entry, ImageConfig, folder, link

#: Debian's own way to configure it, which the official image does not have.
WITHOUT = ("etc/nginx/sites-available", "etc/nginx/sites-enabled", "etc/nginx/nginx.conf", "etc/nginx/snippets", "etc/ufw")

CONFIG = ImageConfig(
    entrypoint=("/docker-entrypoint.sh",),
    cmd=("nginx", "-g", "daemon off;"),
    ports=("80/tcp",),
    stop_signal="SIGQUIT",
    env={"LC_ALL": "C.UTF-8"},
)

_NGINX_CONF = r"""user  nginx;
worker_processes  auto;
error_log  /var/log/nginx/error.log notice;
pid        /run/nginx.pid;

events {
    worker_connections  1024;
}

http {
    include       /etc/nginx/mime.types;
    default_type  application/octet-stream;
    log_format  main  '$remote_addr - $remote_user [$time_local] "$request" '
                      '$status $body_bytes_sent "$http_referer" '
                      '"$http_user_agent" "$http_x_forwarded_for"';
    access_log  /var/log/nginx/access.log  main;
    sendfile        on;
    keepalive_timeout  65;
    include /etc/nginx/conf.d/*.conf;
}
"""

_DEFAULT_CONF = """server {
    listen       80;
    server_name  localhost;

    location / {
        root   /usr/share/nginx/html;
        index  index.html index.htm;
    }

    error_page   500 502 503 504  /50x.html;
    location = /50x.html {
        root   /usr/share/nginx/html;
    }
}
"""

_PAGE = """<!DOCTYPE html>
<html>
<head>
<title>{title}</title>
<style>
html {{ color-scheme: light dark; }}
body {{ width: 35em; margin: 0 auto; font-family: Tahoma, Verdana, Arial, sans-serif; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
</body>
</html>
"""

_ENTRYPOINT = """#!/bin/sh
# If the command is nginx, the scripts of /docker-entrypoint.d run first, in order. Any other command starts as it is.
set -e
if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
    for script in /docker-entrypoint.d/*; do
        case "$script" in
            *.envsh) if [ -x "$script" ]; then . "$script"; fi ;;
            *.sh) if [ -x "$script" ]; then "$script"; fi ;;
        esac
    done
fi
exec "$@"
"""

_IPV6 = """#!/bin/sh
# The default server also listens on IPv6 where there is one and its file can be written and is still ours.
set -e
file=/etc/nginx/conf.d/default.conf
[ -f /proc/net/if_inet6 ] && [ -w "$file" ] || exit 0
grep -q 'listen  *\\[::\\]:80;' "$file" && exit 0
sed -i -E 's,listen       80;,listen       80;\\n    listen  [::]:80;,' "$file"
"""

_TEMPLATES = """#!/bin/sh
# /etc/nginx/templates/NAME.template becomes /etc/nginx/conf.d/NAME, with variables of the environment filled in.
set -e
from="${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}"
to="${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}"
suffix="${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}"
[ -d "$from" ] || exit 0
names=$(env | sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/${\\1}/p')
find "$from" -follow -type f -name "*$suffix" | while read -r template; do
    relative="${template#"$from"/}"
    output="$to/${relative%"$suffix"}"
    mkdir -p "$(dirname "$output")"
    envsubst "$names" <"$template" >"$output"
done
"""


def files() -> list[Entry]:
    """What is laid over the unpacked packages."""
    welcome = _PAGE.format(
        title="Welcome to nginx!", text="The web server is working. Put your pages in /usr/share/nginx/html."
    )
    broken = _PAGE.format(title="An error occurred.", text="The page cannot be had right now. Please try again later.")
    return [
        Entry("docker-entrypoint.sh", 0o755, content=_ENTRYPOINT.encode()),
        Entry("docker-entrypoint.d/10-listen-on-ipv6-by-default.sh", 0o755, content=_IPV6.encode()),
        Entry("docker-entrypoint.d/20-envsubst-on-templates.sh", 0o755, content=_TEMPLATES.encode()),
        Entry("etc/nginx/nginx.conf", content=_NGINX_CONF.encode()),
        Entry("etc/nginx/conf.d/default.conf", content=_DEFAULT_CONF.encode()),
        Entry("usr/share/nginx/html/index.html", content=welcome.encode()),
        Entry("usr/share/nginx/html/50x.html", content=broken.encode()),
        folder("var/lib/nginx"),
        folder("var/cache/nginx"),
        link("var/log/nginx/access.log", "/dev/stdout"),
        link("var/log/nginx/error.log", "/dev/stderr"),
    ]
