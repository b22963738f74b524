FROM debian:bookworm-slim
RUN groupadd --system --gid 999 redis \
    && useradd --system --gid redis --uid 999 --home-dir /data redis \
    && apt-get update \
    && apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc \
    && ln -s /usr/bin/redis-server /usr/bin/redis-cli /usr/local/bin/ \
    && install -d -o redis -g redis /data
COPY redis-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
