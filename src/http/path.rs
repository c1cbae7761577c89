//! A path of the API with its methods: GET answers HEAD too, OPTIONS tells which there are, and whatever
//! else is refused with the same list.

use actix_web::dev::{AppService, HttpServiceFactory};
use actix_web::http::{Method, header};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, web};

use super::problem::ApiError;

/// A path under construction.
pub struct Path {
    resource: Resource,
    allowed: Vec<Method>,
}

/// A path without methods.
pub fn path(pattern: &str) -> Path {
    Path {
        resource: web::resource(pattern),
        allowed: Vec::new(),
    }
}

impl Path {
    /// Answers GET, and HEAD in the same way: the connection leaves the body out.
    pub fn get<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, handler.clone())
            .on(Method::HEAD, handler)
    }

    /// Answers GET, which begins something that HEAD must not.
    pub fn upgrade<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::GET, handler)
    }

    /// Answers POST.
    pub fn post<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::POST, handler)
    }

    /// Answers PATCH.
    pub fn patch<F, Args>(self, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.on(Method::PATCH, handler)
    }

    fn on<F, Args>(mut self, method: Method, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.allowed.push(method.clone());
        self.resource = self.resource.route(web::method(method).to(handler));
        self
    }
}

impl HttpServiceFactory for Path {
    fn register(mut self, app: &mut AppService) {
        if !self.allowed.contains(&Method::OPTIONS) {
            self.allowed.push(Method::OPTIONS);
        }
        let allow = self.allowed.iter().map(Method::as_str);
        let allow: String = allow.collect::<Vec<_>>().join(", ");
        self.resource
            .default_service(web::to(move |request: HttpRequest| {
                let told = other_method(&request, &allow);
                std::future::ready(told)
            }))
            .register(app);
    }
}

/// The other methods of a path that has POST alone.
pub async fn post_only(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    other_method(&request, "POST, OPTIONS")
}

/// OPTIONS is answered; a method that the path does not have is refused.
fn other_method(request: &HttpRequest, allow: &str) -> Result<HttpResponse, ApiError> {
    if *request.method() == Method::OPTIONS {
        return Ok(HttpResponse::NoContent()
            .insert_header((header::ALLOW, allow))
            .finish());
    }
    Err(ApiError::method_not_allowed(allow))
}
