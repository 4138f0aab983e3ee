//! The server's questions at login: trust, cleartext, MD5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::fault::Fault;
use super::settings::{ChannelBinding, Password, Settings};
use super::tls;

/// Answers until the server says that we are in. `certificate`: the server's, where the connection is encrypted.
pub(super) async fn login(
    connection: &mut Connection,
    settings: &Settings,
    certificate: Option<Vec<u8>>,
) -> Result<(), Fault> {
    let mut bound = false;
    loop {
        let mut out = BytesMut::new();
        match connection.login_message().await? {
            Message::AuthenticationOk => {
                return if settings.channel_binding == ChannelBinding::Require && !bound {
                    Err(Fault::Login("channel_binding=require, but the server let us in without it".into()))
                } else {
                    Ok(())
                };
            }
            Message::AuthenticationCleartextPassword => {
                unbound(settings)?;
                frontend::password_message(password(settings)?.as_bytes(), &mut out).map_err(Fault::Lost)?;
                connection.send(&out).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                unbound(settings)?;
                let hash = md5_hash(settings.user.as_bytes(), password(settings)?.as_bytes(), body.salt());
                frontend::password_message(hash.as_bytes(), &mut out).map_err(Fault::Lost)?;
                connection.send(&out).await?;
            }
            Message::AuthenticationSasl(body) => {
                bound = scram(connection, settings, &body, certificate.as_deref()).await?
            }
            Message::AuthenticationGss | Message::AuthenticationKerberosV5 | Message::AuthenticationSspi => {
                return Err(Fault::Login(
                    "the server asks for GSSAPI, SSPI or Kerberos, which are not supported".into(),
                ));
            }
            _ => return Err(Fault::protocol("the server sent what does not belong into a login")),
        }
    }
}

fn password(settings: &Settings) -> Result<&Password, Fault> {
    settings.password.as_ref().ok_or_else(|| Fault::Login("the server asks for a password and the url has none".into()))
}

/// A server that may be an impostor is not shown the password in a form that it can use.
fn unbound(settings: &Settings) -> Result<(), Fault> {
    if settings.channel_binding == ChannelBinding::Require {
        return Err(Fault::Login("channel_binding=require, but the server does not ask for SCRAM".into()));
    }
    Ok(())
}

/// <https://www.postgresql.org/docs/current/sasl-authentication.html>; answers whether the channel was bound.
async fn scram(
    connection: &mut Connection,
    settings: &Settings,
    body: &AuthenticationSaslBody,
    certificate: Option<&[u8]>,
) -> Result<bool, Fault> {
    let (mut plain, mut plus) = (false, false);
    let mut mechanisms = body.mechanisms();
    while let Some(mechanism) = mechanisms.next().map_err(Fault::Lost)? {
        plain |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    let hash = match settings.channel_binding {
        ChannelBinding::Disable => None,
        _ => certificate.and_then(tls::end_point_hash),
    };
    let (mechanism, binding, bound) = match hash {
        Some(hash) if plus => (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash), true),
        // "We could, you did not offer": a man in the middle that took the offer out is found by this.
        Some(_) if plain => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested(), false),
        None if plain => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported(), false),
        _ => return Err(Fault::Login("the server offers no SASL mechanism that we know".into())),
    };
    if settings.channel_binding == ChannelBinding::Require && !bound {
        return Err(Fault::Login("channel_binding=require, but connection or server do not allow it".into()));
    }

    let mut scram = ScramSha256::new(password(settings)?.as_bytes(), binding);
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(Fault::Lost)?;
    connection.send(&out).await?;

    let Message::AuthenticationSaslContinue(body) = connection.login_message().await? else {
        return Err(Fault::protocol("SCRAM: the server did not go on"));
    };
    scram.update(body.data()).map_err(scram_failed)?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).map_err(Fault::Lost)?;
    connection.send(&out).await?;

    let Message::AuthenticationSaslFinal(body) = connection.login_message().await? else {
        return Err(Fault::protocol("SCRAM: the server did not finish"));
    };
    scram.finish(body.data()).map_err(scram_failed)?;
    Ok(bound)
}

fn scram_failed(e: std::io::Error) -> Fault {
    Fault::Login(format!("SCRAM: {e}: the server does not know the password, or is not the one that it says"))
}
