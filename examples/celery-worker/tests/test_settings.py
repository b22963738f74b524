"""Settings from the environment."""

import ssl

import pytest

from backend import connection, crew, settings


def test_durations_are_whole_seconds(monkeypatch):
    monkeypatch.setenv("VISIBILITY_TIMEOUT", "7200")
    assert settings.seconds("VISIBILITY_TIMEOUT", 3600) == 7200
    monkeypatch.setenv("VISIBILITY_TIMEOUT", "")
    assert settings.seconds("VISIBILITY_TIMEOUT", 3600) == 3600
    monkeypatch.setenv("VISIBILITY_TIMEOUT", "1h")
    with pytest.raises(ValueError, match="VISIBILITY_TIMEOUT must be a whole number of seconds, not '1h'"):
        settings.seconds("VISIBILITY_TIMEOUT", 3600)


def test_keys_have_the_names_that_the_environment_says(monkeypatch):
    for name in ("PRIORITY_STEPS", "UNACKED_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert settings.key_names() == {"global_keyprefix": "", "sep": "\x06\x16"}
    monkeypatch.setattr(settings, "GLOBAL_KEYPREFIX", "app:")
    monkeypatch.setattr(settings, "PRIORITY_SEPARATOR", ":p")
    monkeypatch.setenv("PRIORITY_STEPS", "0,5")
    monkeypatch.setenv("UNACKED_KEY", "held")
    assert settings.key_names() == {
        "global_keyprefix": "app:",
        "sep": ":p",
        "priority_steps": [0, 5],
        "unacked_key": "held",
        "unacked_index_key": "held_index",
        "unacked_mutex_key": "held_mutex",
    }


def test_tls_checks_the_certificate_with_the_given_authority(monkeypatch, tmp_path):
    authority = tmp_path / "ca.crt"
    monkeypatch.setattr(settings, "REDIS_CA_FILE", str(authority))
    assert settings.tls("redis://host") is None
    assert settings.tls("rediss://host") == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    authority.touch()
    assert settings.tls("rediss://host")["ssl_ca_certs"] == str(authority)
    for name, option in (("CERT", "ssl_certfile"), ("KEY", "ssl_keyfile")):
        file = tmp_path / name
        file.touch()
        monkeypatch.setattr(settings, f"REDIS_CLIENT_{name}_FILE", str(file))
        assert settings.tls("rediss://host")[option] == str(file)


def test_sentinels_are_asked_for_the_primary_by_its_name_and_with_a_login_of_their_own(monkeypatch):
    url = "sentinel://:pw@a:26379/1;sentinel://:pw@b:26379/1"
    assert settings.sentinel("redis://host") == {}
    with pytest.raises(ValueError, match="REDIS_SENTINEL_MASTER"):
        settings.sentinel(url)
    monkeypatch.setattr(settings, "SENTINEL_MASTER", "mymaster")
    monkeypatch.setattr(settings, "SENTINEL_LOGIN", {"password": "theirs"})
    options = settings.sentinel(url)
    assert options["master_name"] == "mymaster" and options["sentinel_kwargs"]["password"] == "theirs"
    assert "ssl" not in options["sentinel_kwargs"] and settings.tls(url) is None
    monkeypatch.setattr(settings, "SENTINEL_TLS", True)
    assert settings.sentinel_sockets()["ssl"] and settings.tls(f"{url}?ssl_cert_reqs=required")["ssl_cert_reqs"]
    client = connection.connect(url)
    arguments = client.connection_pool.connection_kwargs
    assert (arguments["db"], arguments["password"]) == (1, "pw")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "OPENAI_API_KEY and CREW_MODEL not set"),
        ({"OPENAI_API_KEY": "k"}, "CREW_MODEL not set"),
        ({"CREW_MODEL": "m"}, "OPENAI_API_KEY not set"),
        ({"OPENAI_BASE_URL": "http://llm"}, "CREW_MODEL not set"),
    ],
)
def test_without_a_model_the_crew_is_offline_and_says_why(monkeypatch, environment, reason):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CREW_MODEL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen = crew.configured()
    assert chosen.name == "offline"
    assert crew.missing_settings() == reason.removesuffix(" not set").split(" and ")
