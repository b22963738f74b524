#!/bin/sh
# Options alone mean the server, as in the image this one stands in for.
case $1 in
  -* | *.conf) set -- redis-server "$@" ;;
esac
exec "$@"
